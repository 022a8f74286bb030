#include "coordinator/request/jpeg_errors.h"

#include <jerror.h>

namespace lancet {

// libjpeg answers damaged data with a warning and made-up pixels. To us it is an error, but for what cameras
// and editors are known to write and what leaves every pixel intact.
void JpegErrors::OnMessage(j_common_ptr codec, int level) {
  if (level >= 0) return;
  switch (codec->err->msg_code) {
    case JWRN_ADOBE_XFORM:      // an unknown colour transform code; YCbCr is assumed
    case JWRN_JFIF_MAJOR:       // an unknown version
    case JWRN_EXTRANEOUS_DATA:  // padding before a marker
      return;
    default:
      OnError(codec);
  }
}

}  // namespace lancet

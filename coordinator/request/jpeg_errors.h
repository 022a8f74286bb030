// libjpeg's errors as text. It reports them by longjmp: a function that calls setjmp on `escape` and then
// libjpeg must hold nothing with a destructor, and what it works on belongs to its caller.
#pragma once

// clang-format off
// jpeglib.h needs size_t and FILE declared before it.
#include <csetjmp>
#include <cstddef>
#include <cstdio>

#include <jpeglib.h>
// clang-format on

namespace lancet {

struct JpegErrors {
  jpeg_error_mgr manager;  // must be first: libjpeg knows the struct by this member
  jmp_buf escape;
  char message[JMSG_LENGTH_MAX];

  JpegErrors() : manager{}, escape{}, message{} {
    jpeg_std_error(&manager);
    manager.error_exit = OnError;
    manager.emit_message = OnMessage;
  }

  [[noreturn]] static void OnError(j_common_ptr codec) {
    auto* errors = reinterpret_cast<JpegErrors*>(codec->err);
    codec->err->format_message(codec, errors->message);
    longjmp(errors->escape, 1);
  }

 private:
  static void OnMessage(j_common_ptr codec, int level);
};

}  // namespace lancet

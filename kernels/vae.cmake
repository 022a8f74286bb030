# The image decoder's kernels. The loops of cpu/vae_rows_inl.h are built once per instruction set, with fused
# multiply-adds where the set has them: their tests compare with tolerances, not bit for bit.
if(LANCET_X86)
  set(vae_isa_sources cpu/vae_rows_avx2.cc cpu/vae_rows_avx512.cc)
else()
  set(vae_isa_sources cpu/vae_no_x86.cc)
endif()
lancet_library(lancet_kernels_conv
  HDRS conv.h feature_map.h spatial_attention.h vae_ops.h cpu/onednn.h cpu/vae_rows.h
  SRCS cpu/conv_cpu.cc cpu/spatial_attention_cpu.cc cpu/vae_ops_cpu.cc cpu/vae_rows_portable.cc ${vae_isa_sources}
  DEPS lancet_common lancet_kernels absl::status absl::statusor absl::strings absl::span DNNL::dnnl)
set_source_files_properties(cpu/vae_rows_portable.cc PROPERTIES COMPILE_OPTIONS -O3)
set_source_files_properties(cpu/vae_rows_avx2.cc PROPERTIES COMPILE_OPTIONS "-O3;-mavx2;-mfma")
set_source_files_properties(cpu/vae_rows_avx512.cc PROPERTIES
  COMPILE_OPTIONS "-O3;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mfma;-mprefer-vector-width=512")

# Scalar loops that tests compare with.
lancet_library(lancet_kernels_vae_reference
  HDRS reference/vae_ref.h
  SRCS reference/vae_ref.cc
  DEPS lancet_common)

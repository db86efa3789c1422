//! The catalogue of texts of errors that show a dead or faulty GPU context.

use crate::Class;

/// One known text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Stable name for incidents and metrics.
    pub id: &'static str,
    /// What it shows.
    pub class: Class,
    /// The text, any case.
    pub contains: &'static str,
}

const fn signature(class: Class, id: &'static str, contains: &'static str) -> Signature {
    Signature { id, class, contains }
}

/// Known texts, the more telling first: the first one that is found names the fault.
///
/// CUDA errors are asynchronous, so a library's status is often only the first reporter of a dead context; those are
/// [`Class::Ambiguous`] and a probe decides. Texts are the CUDA runtime's (`cudaGetErrorString`, `cudaGetErrorName`), the
/// driver's (`CUDA_ERROR_*`), and those of PyTorch, ONNX Runtime, TensorRT, CTranslate2 and Triton. PyTorch ends every CUDA
/// error with advice on "device-side assertions", so that error is only known by its full wording.
pub const BUILT_IN: &[Signature] = &[
    // The device is lost or its memory is broken.
    signature(Class::DeviceLost, "ecc_uncorrectable", "uncorrectable ECC error"),
    signature(Class::DeviceLost, "ecc_uncorrectable", "cudaErrorECCUncorrectable"),
    signature(Class::DeviceLost, "ecc_uncorrectable", "CUDA_ERROR_ECC_UNCORRECTABLE"),
    signature(Class::DeviceLost, "no_device", "no CUDA-capable device"),
    signature(Class::DeviceLost, "no_device", "cudaErrorNoDevice"),
    signature(Class::DeviceLost, "no_device", "CUDA_ERROR_NO_DEVICE"),
    signature(Class::DeviceLost, "device_unavailable", "busy or unavailable"),
    signature(Class::DeviceLost, "device_unavailable", "cudaErrorDevicesUnavailable"),
    signature(Class::DeviceLost, "device_unavailable", "device unavailable"),
    signature(Class::DeviceLost, "nvlink", "peer gpu memory over nvlink"),
    signature(Class::DeviceLost, "nvlink", "peer memory over nvlink"),
    signature(Class::DeviceLost, "nvlink", "uncorrectable NVLink error"),
    signature(Class::DeviceLost, "off_the_bus", "fallen off the bus"),
    signature(Class::DeviceLost, "off_the_bus", "GPU is lost"),
    // A broken stream capture stays broken in practice.
    signature(Class::Capture, "stream_capture", "cudaErrorStreamCapture"),
    signature(Class::Capture, "stream_capture", "CUDA_ERROR_STREAM_CAPTURE"),
    signature(Class::Capture, "stream_capture", "operation not permitted when stream is capturing"),
    signature(Class::Capture, "stream_capture", "due to a previous error during capture"),
    signature(Class::Capture, "stream_capture", "capture must end on the same stream"),
    signature(Class::Capture, "stream_capture", "depend on a capturing blocking stream"),
    // The context is dead: every later call returns the same error.
    signature(Class::Sticky, "illegal_address", "illegal memory access was encountered"),
    signature(Class::Sticky, "illegal_address", "cudaErrorIllegalAddress"),
    signature(Class::Sticky, "illegal_address", "CUDA_ERROR_ILLEGAL_ADDRESS"),
    signature(Class::Sticky, "device_assert", "device-side assert triggered"),
    signature(Class::Sticky, "device_assert", "cudaErrorAssert"),
    signature(Class::Sticky, "device_assert", "CUDA_ERROR_ASSERT"),
    signature(Class::Sticky, "launch_failure", "unspecified launch failure"),
    signature(Class::Sticky, "launch_failure", "cudaErrorLaunchFailure"),
    signature(Class::Sticky, "launch_failure", "CUDA_ERROR_LAUNCH_FAILED"),
    signature(Class::Sticky, "misaligned_address", "misaligned address"),
    signature(Class::Sticky, "misaligned_address", "cudaErrorMisalignedAddress"),
    signature(Class::Sticky, "misaligned_address", "CUDA_ERROR_MISALIGNED_ADDRESS"),
    signature(Class::Sticky, "invalid_pc", "invalid program counter"),
    signature(Class::Sticky, "invalid_pc", "cudaErrorInvalidPc"),
    signature(Class::Sticky, "invalid_pc", "CUDA_ERROR_INVALID_PC"),
    signature(Class::Sticky, "illegal_instruction", "illegal instruction was encountered"),
    signature(Class::Sticky, "illegal_instruction", "cudaErrorIllegalInstruction"),
    signature(Class::Sticky, "illegal_instruction", "CUDA_ERROR_ILLEGAL_INSTRUCTION"),
    signature(Class::Sticky, "address_space", "invalid address space"),
    signature(Class::Sticky, "address_space", "operation not supported on global/shared address space"),
    signature(Class::Sticky, "address_space", "cudaErrorInvalidAddressSpace"),
    signature(Class::Sticky, "hardware_stack", "hardware stack error"),
    signature(Class::Sticky, "hardware_stack", "cudaErrorHardwareStackError"),
    signature(Class::Sticky, "launch_timeout", "launch timed out"),
    signature(Class::Sticky, "launch_timeout", "cudaErrorLaunchTimeout"),
    signature(Class::Sticky, "context_destroyed", "cudaErrorContextIsDestroyed"),
    signature(Class::Sticky, "context_destroyed", "CUDA_ERROR_CONTEXT_IS_DESTROYED"),
    // Driver, image and GPU do not fit together.
    signature(Class::Environment, "driver_too_old", "driver version is insufficient"),
    signature(Class::Environment, "driver_too_old", "cudaErrorInsufficientDriver"),
    signature(Class::Environment, "driver_too_old", "driver on your system is too old"),
    signature(Class::Environment, "no_driver", "found no NVIDIA driver"),
    signature(Class::Environment, "no_driver", "libcuda.so.1: cannot open"),
    signature(Class::Environment, "no_kernel_image", "no kernel image is available"),
    signature(Class::Environment, "no_kernel_image", "cudaErrorNoKernelImageForDevice"),
    signature(Class::Environment, "ptx_toolchain", "PTX was compiled with an unsupported toolchain"),
    signature(Class::Environment, "driver_mismatch", "unsupported display driver / cuda driver combination"),
    signature(Class::Environment, "driver_mismatch", "forward compatibility was attempted"),
    // A library's status: a probe decides.
    signature(Class::Ambiguous, "cublas_execution_failed", "CUBLAS_STATUS_EXECUTION_FAILED"),
    signature(Class::Ambiguous, "cublas_internal_error", "CUBLAS_STATUS_INTERNAL_ERROR"),
    signature(Class::Ambiguous, "cublas_not_initialized", "CUBLAS_STATUS_NOT_INITIALIZED"),
    signature(Class::Ambiguous, "cublas_alloc_failed", "CUBLAS_STATUS_ALLOC_FAILED"),
    signature(Class::Ambiguous, "cublas", "CUBLAS_STATUS_"),
    signature(Class::Ambiguous, "cudnn_execution_failed", "CUDNN_STATUS_EXECUTION_FAILED"),
    signature(Class::Ambiguous, "cudnn_mapping_error", "CUDNN_STATUS_MAPPING_ERROR"),
    signature(Class::Ambiguous, "cudnn_not_initialized", "CUDNN_STATUS_NOT_INITIALIZED"),
    signature(Class::Ambiguous, "cudnn", "CUDNN_STATUS_"),
    signature(Class::Ambiguous, "cufft", "cuFFT error"),
    signature(Class::Ambiguous, "nccl", "unhandled cuda error"),
    // Out of GPU memory: the context survives.
    signature(Class::Memory, "out_of_memory", "CUDA out of memory"),
    signature(Class::Memory, "out_of_memory", "CUDA error: out of memory"),
    signature(Class::Memory, "out_of_memory", "CUDA failed with error out of memory"),
    signature(Class::Memory, "out_of_memory", "cuda.OutOfMemoryError"),
    signature(Class::Memory, "out_of_memory", "torch.OutOfMemoryError"),
    signature(Class::Memory, "out_of_memory", "cudaErrorMemoryAllocation"),
    signature(Class::Memory, "out_of_memory", "CUDA_ERROR_OUT_OF_MEMORY"),
    signature(Class::Memory, "out_of_memory", "failed to allocate memory for requested buffer"),
    // Any other CUDA error, and a parent that tells of its dead worker.
    signature(Class::Ambiguous, "cuda_unknown", "CUDA error:"),
    signature(Class::Ambiguous, "cuda_unknown", "CUDA error "),
    signature(Class::Ambiguous, "cuda_unknown", "CUDA driver error"),
    signature(Class::Ambiguous, "cuda_unknown", "CUDA runtime error"),
    signature(Class::Ambiguous, "cuda_unknown", "CUDA failure "),
    signature(Class::Ambiguous, "cuda_unknown", "CUDA failed with error"),
    signature(Class::Ambiguous, "cuda_unknown", "Cuda Runtime ("),
    signature(Class::Ambiguous, "cuda_unknown", "cudaErrorUnknown"),
    signature(Class::Ambiguous, "worker_dead", "EngineDeadError"),
    signature(Class::Ambiguous, "worker_dead", "EngineCore encountered an issue"),
    signature(Class::Ambiguous, "worker_dead", "BrokenProcessPool"),
    signature(Class::Ambiguous, "worker_dead", "stub process is not healthy"),
    signature(Class::Ambiguous, "worker_dead", "stub process '"),
];

/// The signature whose text stands in `text`, in any case; of several the first of [`BUILT_IN`].
pub fn find(text: &str) -> Option<&'static Signature> {
    let text = text.to_ascii_lowercase();
    BUILT_IN.iter().find(|known| text.contains(&known.contains.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_telling_text_names_the_fault() {
        let log = "CUBLAS_STATUS_INTERNAL_ERROR\nRuntimeError: CUDA error: an Illegal Memory Access was encountered";
        assert_eq!(find(log).map(|known| known.id), Some("illegal_address"));
        assert_eq!(find("all is well"), None);
    }
}

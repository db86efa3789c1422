use crate::guard::path::classify::*;

/// Replies as engines send them: status, body, expected class and signature.
const FAULTS: &[(u16, &str, Class, Option<&str>)] = &[
    // FastAPI around PyTorch.
    (
        500,
        r#"{"detail":"CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"}"#,
        Class::Sticky,
        Some("illegal_address"),
    ),
    (
        500,
        r#"{"detail":"CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"}"#,
        Class::Sticky,
        Some("device_assert"),
    ),
    (
        500,
        "Traceback (most recent call last):\n  File \"/app/main.py\", line 212, in transcribe\n    hyps = model.transcribe([path])\n  File \"/usr/local/lib/python3.10/dist-packages/nemo/collections/asr/models/rnnt_models.py\", line 308, in transcribe\n    return super().transcribe(\ntorch.AcceleratorError: CUDA error: unspecified launch failure\n",
        Class::Sticky,
        Some("launch_failure"),
    ),
    (
        500,
        r#"{"error":{"message":"CUDA error: misaligned address","type":"server_error"}}"#,
        Class::Sticky,
        Some("misaligned_address"),
    ),
    (
        500,
        r#"{"detail":"CUDA error: the launch timed out and was terminated"}"#,
        Class::Sticky,
        Some("launch_timeout"),
    ),
    (
        500,
        r#"{"detail":"CUDA error: an illegal instruction was encountered"}"#,
        Class::Sticky,
        Some("illegal_instruction"),
    ),
    (500, "RuntimeError: CUDA error: hardware stack error", Class::Sticky, Some("hardware_stack")),
    (500, "CUDA error: invalid program counter", Class::Sticky, Some("invalid_pc")),
    (
        500,
        "CUDA error: operation not supported on global/shared address space",
        Class::Sticky,
        Some("address_space"),
    ),
    // The same hidden behind a client error.
    (
        422,
        r#"{"detail":"ASR failed: CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some other API call"}"#,
        Class::Sticky,
        Some("illegal_address"),
    ),
    (
        422,
        r#"{"detail":"CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"}"#,
        Class::Ambiguous,
        Some("cublas_execution_failed"),
    ),
    (
        400,
        r#"{"error":"CUDA out of memory. Tried to allocate 2.41 GiB"}"#,
        Class::Memory,
        Some("out_of_memory"),
    ),
    // ONNX Runtime, TensorRT, CTranslate2.
    (
        500,
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=parakeet-0 ; expr=cudaStreamSynchronize(stream)",
        Class::Sticky,
        Some("illegal_address"),
    ),
    (
        500,
        "[TRT] [E] 1: [checkMacros.cpp::catchCudaError::203] Error Code 1: Cuda Runtime (an illegal memory access was encountered)",
        Class::Sticky,
        Some("illegal_address"),
    ),
    (
        500,
        "[TRT] [E] 1: [runner.cpp::execute::416] Error Code 1: Cuda Runtime (invalid resource handle)",
        Class::Ambiguous,
        Some("cuda_unknown"),
    ),
    (500, r#"{"detail":"CUDA failed with error out of memory"}"#, Class::Memory, Some("out_of_memory")),
    // Triton.
    (
        500,
        r#"{"error":"in ensemble 'parakeet', onnx runtime error 6: Non-zero status code returned while running FusedConv node. CUDNN error executing cudnnConvolutionForward: CUDNN_STATUS_MAPPING_ERROR"}"#,
        Class::Ambiguous,
        Some("cudnn_mapping_error"),
    ),
    (
        500,
        r#"{"error":"Failed to process the request(s) for model instance 'magpie_0_0', message: Stub process 'magpie_0_0' is not healthy."}"#,
        Class::Ambiguous,
        Some("worker_dead"),
    ),
    // NeMo's CUDA graphs.
    (
        500,
        "torch.AcceleratorError: CUDA error: operation not permitted when stream is capturing\nSearch for `cudaErrorStreamCaptureUnsupported' in https://docs.nvidia.com/cuda/ for more information.",
        Class::Capture,
        Some("stream_capture"),
    ),
    (
        500,
        "CUDA error: operation failed due to a previous error during capture",
        Class::Capture,
        Some("stream_capture"),
    ),
    (500, "CUDA driver error: 906 cudaErrorStreamCaptureImplicit", Class::Capture, Some("stream_capture")),
    // Devices.
    (
        500,
        "RuntimeError: CUDA error: uncorrectable ECC error encountered",
        Class::DeviceLost,
        Some("ecc_uncorrectable"),
    ),
    (500, "RuntimeError: No CUDA-capable device is detected", Class::DeviceLost, Some("no_device")),
    (
        500,
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        Class::DeviceLost,
        Some("device_unavailable"),
    ),
    (
        500,
        "CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error",
        Class::DeviceLost,
        Some("nvlink"),
    ),
    (
        500,
        "Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.  Reboot the system to recover this GPU",
        Class::DeviceLost,
        Some("off_the_bus"),
    ),
    // Memory.
    (
        500,
        r#"{"detail":"CUDA out of memory. Tried to allocate 5.27 GiB. GPU 0 has a total capacity of 15.77 GiB of which 2.11 GiB is free. Process 41 has 13.65 GiB memory in use."}"#,
        Class::Memory,
        Some("out_of_memory"),
    ),
    (503, "torch.cuda.OutOfMemoryError: CUDA error: out of memory", Class::Memory, Some("out_of_memory")),
    (
        500,
        r#"{"detail":"CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"}"#,
        Class::Ambiguous,
        Some("cublas_alloc_failed"),
    ),
    (
        500,
        r#"{"detail":"CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"}"#,
        Class::Ambiguous,
        Some("cublas_not_initialized"),
    ),
    (
        500,
        "RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        Class::Ambiguous,
        Some("cudnn_execution_failed"),
    ),
    (
        500,
        "NCCL error in: ProcessGroupNCCL.cpp:1234, unhandled cuda error, NCCL version 2.18.6",
        Class::Ambiguous,
        Some("nccl"),
    ),
    (
        500,
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.",
        Class::Ambiguous,
        Some("worker_dead"),
    ),
    (500, "RuntimeError: CUDA error: unknown error", Class::Ambiguous, Some("cuda_unknown")),
    // Environment.
    (
        500,
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        Class::Environment,
        Some("no_kernel_image"),
    ),
    (
        503,
        r#"{"detail":"model load failed: CUDA driver version is insufficient for CUDA runtime version"}"#,
        Class::Environment,
        Some("driver_too_old"),
    ),
    (500, "RuntimeError: Found no NVIDIA driver on your system.", Class::Environment, Some("no_driver")),
    // Nothing but a status.
    (500, "Internal Server Error", Class::Ambiguous, None),
    (500, r#"{"detail":"list index out of range"}"#, Class::Ambiguous, None),
    (502, "<html><body><h1>502 Bad Gateway</h1></body></html>", Class::Ambiguous, None),
    (504, "", Class::Ambiguous, None),
    (500, "\u{0}\u{1}\u{2}", Class::Ambiguous, None),
];

/// Replies that show no fault of the engine.
const HARMLESS: &[(u16, &str)] = &[
    (200, "CUDA out of memory"),
    (
        400,
        r#"{"error":{"message":"400: Invalid file format.","type":"invalid_request_error","param":"file","code":null}}"#,
    ),
    (400, r#"{"detail":"400 Bad Request: audio too long"}"#),
    (404, r#"{"detail":"Not Found"}"#),
    (413, "Payload Too Large"),
    (415, r#"{"detail":"Unsupported media type: use .wav .flac .mp3 .ogg .opus"}"#),
    (422, r#"{"detail":[{"type":"missing","loc":["body","file"],"msg":"Field required","input":null}]}"#),
    (
        422,
        r#"{"detail": [{"type":"string_too_long","loc":["body","text"],"msg":"String should have at most 2000 characters","input":"then it said CUDA error: an illegal memory access was encountered"}]}"#,
    ),
    (422, r#"{"detail":"unknown field 'cuda_device'"}"#),
    (400, r#"{"detail":"model 'parakeet-cuda' does not exist; compile with CUDA support"}"#),
    (400, r#"{"detail":"device must be 'cuda' or 'cpu'"}"#),
    (422, r#"{"detail":"could not decode audio: illegal memory layout in header"}"#),
    (429, r#"{"detail":"too many requests"}"#),
    (503, r#"{"detail":"model is loading"}"#),
    (501, "not implemented"),
];

#[test]
fn recorded_faults_are_classified() {
    let catalogue = Catalogue::new(&[]);
    for (status, body, class, signature) in FAULTS {
        let status = StatusCode::from_u16(*status).unwrap();
        let expected = Finding { class: *class, signature: signature.map(str::to_owned) };
        assert_eq!(
            classify(status, body.as_bytes(), Vec::new, &catalogue),
            Some(expected),
            "{status} {body}"
        );
        let loud = body.to_ascii_uppercase();
        let found = classify(status, loud.as_bytes(), Vec::new, &catalogue).unwrap();
        assert_eq!(found.class, *class, "case must not matter: {status} {loud}");
    }
}

#[test]
fn harmless_replies_are_not() {
    let catalogue = Catalogue::new(&[]);
    for (status, body) in HARMLESS {
        let status = StatusCode::from_u16(*status).unwrap();
        assert_eq!(classify(status, body.as_bytes(), Vec::new, &catalogue), None, "{status} {body}");
    }
}

#[test]
fn only_overload_statuses_are_busy() {
    assert!(is_busy(StatusCode::SERVICE_UNAVAILABLE) && is_busy(StatusCode::TOO_MANY_REQUESTS));
    assert!(!is_busy(StatusCode::INTERNAL_SERVER_ERROR) && !is_busy(StatusCode::NOT_FOUND));
}

//! Bodies of failures as GPU engines write them.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::mode::Signature;

/// A failed inference: what is answered instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// FastAPI's `detail`.
    pub detail: Value,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(json!({ "detail": self.detail }))).into_response()
    }
}

/// A CUDA error as PyTorch words it.
#[must_use]
pub fn cuda(status: u16, signature: Signature) -> Failure {
    let error = match signature {
        Signature::IllegalAccess => "an illegal memory access was encountered",
        Signature::DeviceAssert => "device-side assert triggered",
        Signature::LaunchFailure => "unspecified launch failure",
        Signature::MisalignedAddress => "misaligned address",
        Signature::Capture => "operation not permitted when stream is capturing",
        Signature::Ecc => "uncorrectable ECC error encountered",
    };
    let detail = format!(
        "CUDA error: {error}\nCUDA kernel errors might be asynchronously reported at some other API call, so the \
         stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with \
         `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
    );
    Failure { status, detail: detail.into() }
}

/// F2.
#[must_use]
pub fn cublas() -> Failure {
    let detail = "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmStridedBatchedEx(handle, opa, \
                  opb, (int)m, (int)n, (int)k, (void*)&falpha, a, CUDA_R_16BF, (int)lda, stridea, b, CUDA_R_16BF, \
                  (int)ldb, strideb, (void*)&fbeta, c, CUDA_R_16BF, (int)ldc, stridec, (int)num_batches, \
                  compute_type, CUBLAS_GEMM_DEFAULT_TENSOR_OP)`";
    Failure { status: 500, detail: detail.into() }
}

/// F6.
#[must_use]
pub fn out_of_memory() -> Failure {
    let detail = "CUDA out of memory. Tried to allocate 2.93 GiB. GPU 0 has a total capacity of 23.65 GiB of which \
                  1.02 GiB is free. Process 1 has 22.62 GiB memory in use.";
    Failure { status: 500, detail: detail.into() }
}

/// F5: alternately a 400 and a 422.
#[must_use]
pub fn validation(nth: u64) -> Failure {
    if nth.is_multiple_of(2) {
        return Failure { status: 400, detail: "Invalid value for a request parameter".into() };
    }
    let detail =
        json!([{"type": "missing", "loc": ["body", "file"], "msg": "Field required", "input": null}]);
    Failure { status: 422, detail }
}

/// The text of a load that can never succeed (class D).
pub const DRIVER_TOO_OLD: &str = "CUDA driver version is insufficient for CUDA runtime version";

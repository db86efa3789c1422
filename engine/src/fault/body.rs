//! Bodies of failures as GPU engines write them.

use serde_json::{Value, json};
use tonic::Code;

use super::variant::Signature;

/// A failed inference: what is answered instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// FastAPI's `detail`.
    pub detail: Value,
    /// Whose fault it is.
    pub cause: Cause,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The inference broke.
    Inference,
    /// Memory did not suffice.
    Memory,
    /// The request is said to be wrong.
    Request,
    /// The server around the inference.
    Server,
    /// Only gRPC shows it, with this code.
    Grpc(Code),
}

impl Failure {
    /// What went wrong, as plain text.
    #[must_use]
    pub fn text(&self) -> String {
        self.detail.as_str().map_or_else(|| self.detail.to_string(), str::to_owned)
    }

    /// The gRPC status code.
    #[must_use]
    pub fn code(&self) -> Code {
        match (self.cause, self.status) {
            (Cause::Grpc(code), _) => code,
            (Cause::Request, 404) => Code::NotFound,
            (Cause::Request, _) => Code::InvalidArgument,
            (Cause::Memory, _) | (Cause::Server, 429) => Code::ResourceExhausted,
            (Cause::Server, 502..=504) => Code::Unavailable,
            (Cause::Inference | Cause::Server, _) => Code::Internal,
        }
    }
}

/// A CUDA error as PyTorch words it.
#[must_use]
pub fn cuda(status: u16, signature: Signature) -> Failure {
    let cause = if status < 500 { Cause::Request } else { Cause::Inference };
    Failure { status, detail: cuda_text(signature).into(), cause }
}

fn cuda_text(signature: Signature) -> String {
    let error = match signature {
        Signature::IllegalAccess => "an illegal memory access was encountered",
        Signature::DeviceAssert => "device-side assert triggered",
        Signature::LaunchFailure => "unspecified launch failure",
        Signature::MisalignedAddress => "misaligned address",
        Signature::Capture => "operation not permitted when stream is capturing",
        Signature::Ecc => "uncorrectable ECC error encountered",
    };
    format!(
        "CUDA error: {error}\nCUDA kernel errors might be asynchronously reported at some other API call, so the \
         stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with \
         `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
    )
}

/// F2.
#[must_use]
pub fn cublas() -> Failure {
    let detail = "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmStridedBatchedEx(handle, opa, \
                  opb, (int)m, (int)n, (int)k, (void*)&falpha, a, CUDA_R_16BF, (int)lda, stridea, b, CUDA_R_16BF, \
                  (int)ldb, strideb, (void*)&fbeta, c, CUDA_R_16BF, (int)ldc, stridec, (int)num_batches, \
                  compute_type, CUBLAS_GEMM_DEFAULT_TENSOR_OP)`";
    Failure { status: 500, detail: detail.into(), cause: Cause::Inference }
}

/// F6.
#[must_use]
pub fn out_of_memory() -> Failure {
    let detail = "CUDA out of memory. Tried to allocate 2.93 GiB. GPU 0 has a total capacity of 23.65 GiB of which \
                  1.02 GiB is free. Process 1 has 22.62 GiB memory in use.";
    Failure { status: 500, detail: detail.into(), cause: Cause::Memory }
}

/// F5: alternately a 400 and a 422.
#[must_use]
pub fn validation(nth: u64) -> Failure {
    if nth.is_multiple_of(2) {
        let detail = "Invalid value for a request parameter".into();
        return Failure { status: 400, detail, cause: Cause::Request };
    }
    let detail =
        json!([{"type": "missing", "loc": ["body", "file"], "msg": "Field required", "input": null}]);
    Failure { status: 422, detail, cause: Cause::Request }
}

/// F3.
#[must_use]
pub fn server_error(status: u16) -> Failure {
    let cause = if status < 500 && status != 429 { Cause::Request } else { Cause::Server };
    Failure { status, detail: "Internal Server Error".into(), cause }
}

/// F12.
#[must_use]
pub fn dead_child() -> Failure {
    Failure { status: 500, detail: "engine process is not running".into(), cause: Cause::Inference }
}

/// F33: as a server words it that loads its model.
#[must_use]
pub fn loading(status: u16) -> Failure {
    Failure { status, detail: "model is loading".into(), cause: Cause::Server }
}

/// F35.
#[must_use]
pub fn not_loaded(status: u16) -> Failure {
    Failure { status, detail: "model not loaded".into(), cause: Cause::Request }
}

/// F39: a message, or a CUDA error.
#[must_use]
pub fn grpc(code: i32, signature: Signature, message: Option<&str>) -> Failure {
    let text = message.map_or_else(|| cuda_text(signature), str::to_owned);
    Failure { status: 500, detail: text.into(), cause: Cause::Grpc(Code::from_i32(code)) }
}

/// F42: repeats the `text` of a `field` of the request.
#[must_use]
pub fn echo(status: u16, field: &str, text: &str) -> Failure {
    let cause = if status < 500 { Cause::Request } else { Cause::Server };
    Failure { status, detail: format!("Invalid value for {field}: '{text}'").into(), cause }
}

/// The text of a load that can never succeed (class D).
pub const DRIVER_TOO_OLD: &str = "CUDA driver version is insufficient for CUDA runtime version";

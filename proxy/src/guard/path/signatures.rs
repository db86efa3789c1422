//! The catalogue of texts by which engines betray a dead or sick GPU context: data, and the searcher built from it.

use aho_corasick::{AhoCorasick, BuildError};

use contract::Class;

use crate::config::SignatureRule;

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

/// Bytes of a body that are searched.
pub const SEARCHED_BYTES: usize = 64 * 1024;

/// A ready-made search for all signatures. Build it once.
#[derive(Debug)]
pub struct Catalogue {
    entries: Vec<Entry>,
    /// Finds all texts in one pass; pattern numbers are indices of `entries`. `None` when it could not be built.
    search: Option<AhoCorasick>,
}

#[derive(Debug)]
struct Entry {
    id: String,
    class: Class,
}

impl Catalogue {
    /// The built-in signatures behind those of the configuration, which win.
    pub fn new(rules: &[SignatureRule]) -> Self {
        let configured = rules.iter().filter(|rule| !rule.contains.trim().is_empty()).map(|rule| {
            let id = format!("config:{}", rule.contains.trim());
            (Entry { id, class: rule.class }, rule.contains.as_str())
        });
        let built_in = BUILT_IN
            .iter()
            .map(|known| (Entry { id: known.id.to_owned(), class: known.class }, known.contains));
        let (entries, texts): (Vec<Entry>, Vec<&str>) = configured.chain(built_in).unzip();
        let search = search(&texts)
            .inspect_err(|error| tracing::error!(%error, texts = texts.len(), "no signature will be found"));
        Self { entries, search: search.ok() }
    }

    /// The signature in the first [`SEARCHED_BYTES`] of `body` that stands first in the table, wherever it stands in the
    /// text: its class and id.
    pub fn find(&self, body: &[u8]) -> Option<(Class, &str)> {
        self.first(self.matches(body))
    }

    /// As [`Catalogue::find`], of the signatures none of whose texts stand in `known`.
    pub fn find_new(&self, body: &[u8], known: &[u8]) -> Option<(Class, &str)> {
        let ids: Vec<&str> = self.matches(known).filter_map(|at| Some(&*self.entries.get(at)?.id)).collect();
        let is_new = |at: &usize| self.entries.get(*at).is_some_and(|entry| !ids.contains(&&*entry.id));
        self.first(self.matches(body).filter(is_new))
    }

    /// Places in the table of the texts that stand in `body`.
    fn matches(&self, body: &[u8]) -> impl Iterator<Item = usize> {
        let text = body.get(..SEARCHED_BYTES).unwrap_or(body);
        let search = self.search.iter();
        search
            .flat_map(move |search| search.find_overlapping_iter(text))
            .map(|found| found.pattern().as_usize())
    }

    fn first(&self, matches: impl Iterator<Item = usize>) -> Option<(Class, &str)> {
        let entry = self.entries.get(matches.min()?)?;
        Some((entry.class, &entry.id))
    }
}

/// Fails only for more texts than the automaton can number, about two billion bytes of them.
fn search(texts: &[&str]) -> Result<AhoCorasick, BuildError> {
    AhoCorasick::builder().ascii_case_insensitive(true).build(texts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_signature_is_reachable() {
        let catalogue = Catalogue::new(&[]);
        for known in BUILT_IN {
            let (class, id) = catalogue.find(known.contains.as_bytes()).unwrap();
            assert_eq!((class, id), (known.class, known.id), "{} is shadowed", known.contains);
        }
    }

    #[test]
    fn a_configured_text_wins_over_a_built_in_one() {
        let rule = SignatureRule { contains: "CUBLAS_STATUS_internal".into(), class: Class::Sticky };
        let catalogue = Catalogue::new(&[rule]);
        let (class, id) = catalogue.find(b"cublas_status_internal_error").unwrap();
        assert_eq!((class, id), (Class::Sticky, "config:CUBLAS_STATUS_internal"));
    }

    #[test]
    fn a_blank_rule_matches_nothing() {
        let rule = SignatureRule { contains: " ".into(), class: Class::Sticky };
        assert_eq!(Catalogue::new(&[rule]).find(b"all is well"), None);
    }

    #[test]
    fn the_search_is_bounded() {
        let mut body = vec![b' '; SEARCHED_BYTES];
        body.extend_from_slice(b"CUDA out of memory");
        assert_eq!(Catalogue::new(&[]).find(&body), None);
    }

    #[test]
    fn the_tables_order_decides_not_the_place_in_the_text() {
        let catalogue = Catalogue::new(&[]);
        let body = b"CUBLAS_STATUS_INTERNAL_ERROR, then an Illegal Memory Access was encountered";
        assert_eq!(catalogue.find(body), Some((Class::Sticky, "illegal_address")));
    }

    #[test]
    fn what_the_request_says_too_is_not_new() {
        let catalogue = Catalogue::new(&[]);
        let body = b"unable to say 'CUDA error: misaligned address'";
        assert_eq!(catalogue.find_new(body, b"please say: cuda ERROR: Misaligned Address"), None);
        assert_eq!(catalogue.find_new(body, b"good morning"), Some((Class::Sticky, "misaligned_address")));
        let both = b"unable to say 'CUDA error: misaligned address': CUDA error: unspecified launch failure";
        let new = catalogue.find_new(both, b"CUDA error: misaligned address");
        assert_eq!(new, Some((Class::Sticky, "launch_failure")));
    }

    /// Each text searched for by itself, in the table's order.
    fn one_by_one(body: &[u8]) -> Option<(Class, &'static str)> {
        let body = String::from_utf8_lossy(body).to_ascii_lowercase();
        let known = BUILT_IN.iter().find(|known| body.contains(&known.contains.to_ascii_lowercase()))?;
        Some((known.class, known.id))
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_one_search_for_each_text_finds(
            parts in proptest::collection::vec((0..BUILT_IN.len(), 0..60_usize, any::<bool>()), 0..5),
        ) {
            // Texts cut short, in other case and run together.
            let body: String = parts
                .iter()
                .map(|(at, cut, upper)| {
                    let text = BUILT_IN[*at].contains;
                    let text = &text[..text.len() - cut.saturating_sub(30).min(text.len())];
                    if *upper { text.to_ascii_uppercase() } else { text.to_owned() }
                })
                .collect();
            let catalogue = Catalogue::new(&[]);
            prop_assert_eq!(catalogue.find(body.as_bytes()), one_by_one(body.as_bytes()));
        }
    }
}

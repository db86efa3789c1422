//! The modes that can be armed, as the switchboard's JSON has them.

use serde::{Deserialize, Serialize};

use super::variant::{BadAudio, BadLoad, BadTranscript, DeadChild, OpenSizes, Signature};

/// A failure mode with its variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", deny_unknown_fields)]
pub enum Mode {
    /// Sticky CUDA error: every inference answers 500 at once.
    F1 {
        /// Which error the body shows.
        #[serde(default)]
        signature: Signature,
    },
    /// Sticky `CUBLAS_STATUS_EXECUTION_FAILED`.
    F2 {},
    /// One-off server error without CUDA text.
    F3 {
        /// HTTP status.
        #[serde(default = "status_500")]
        status: u16,
    },
    /// As F1, hidden in a 422.
    F4 {
        /// Which error the body shows.
        #[serde(default)]
        signature: Signature,
    },
    /// Ordinary validation errors.
    F5 {},
    /// Out of memory.
    F6 {
        /// Only audio longer than this, in seconds; 0 stands for one failure of any length.
        #[serde(default)]
        oom_above_s: f64,
        /// Every inference fails.
        #[serde(default)]
        sticky: bool,
    },
    /// Hung kernel: no answer, utilisation 100.
    F7 {},
    /// Host deadlock: no answer, utilisation 0.
    F8 {},
    /// One request never answers; others do.
    F9 {},
    /// Every endpoint stops answering for a while, then all complete.
    F10 {
        /// Length of the blockade.
        #[serde(default = "seconds_20")]
        seconds: f64,
    },
    /// A short queue that is soon full.
    F11 {
        /// Jobs that may wait.
        #[serde(default = "limit_2")]
        limit: usize,
        /// HTTP status of the refusal.
        #[serde(default = "status_503")]
        status: u16,
    },
    /// The inference child process is dead behind a living parent.
    F12 {
        /// How that shows.
        #[serde(default)]
        variant: DeadChild,
    },
    /// Connections are refused, or reset in mid-body.
    F13 {
        /// Reset after this many bytes of the body, instead of refusing connections.
        #[serde(default)]
        rst_after_bytes: Option<u64>,
    },
    /// 200 with a worthless transcript.
    F14 {
        /// What it says.
        #[serde(default)]
        variant: BadTranscript,
    },
    /// 200 with worthless audio.
    F15 {
        /// How it sounds.
        #[serde(default)]
        variant: BadAudio,
    },
    /// Everything takes longer.
    F16 {
        /// How many times as long.
        #[serde(default = "factor_4")]
        factor: f64,
        /// The factor is reached after this many seconds.
        #[serde(default)]
        ramp_s: f64,
    },
    /// Memory grows with every inference, up to 512 MB.
    F17 {
        /// Megabytes held for each inference.
        #[serde(default = "megabytes_8")]
        mb_per_req: usize,
    },
    /// The model does not load.
    F18 {
        /// How it fails to.
        #[serde(default)]
        variant: BadLoad,
        /// Length of a slow load.
        #[serde(default = "seconds_20")]
        seconds: f64,
    },
    /// As F1, and there again after a restart.
    F22 {
        /// Which error the body shows.
        #[serde(default)]
        signature: Signature,
    },
    /// A poisonous input wedges the process, as F1.
    F23 {
        /// Which error the body shows.
        #[serde(default)]
        signature: Signature,
    },
    /// The next start is slow.
    F27 {
        /// Length of the load.
        #[serde(default = "seconds_20")]
        seconds: f64,
    },
    /// Two inferences at once wedge the process with a capture error.
    F31 {},
    /// The model is made ready by the first inference; every one that begins before the first has ended is as late.
    F32 {
        /// What that takes.
        #[serde(default = "seconds_60")]
        seconds: f64,
    },
    /// Inference is refused for a while after the start or the arming, though health is green.
    F33 {
        /// For how long.
        #[serde(default = "seconds_20")]
        seconds: f64,
        /// HTTP status of the refusal: 503 or 429.
        #[serde(default = "status_503")]
        status: u16,
    },
    /// Every inference takes longer by the same time, and is right.
    F34 {
        /// How much longer.
        #[serde(default = "seconds_15")]
        seconds: f64,
    },
    /// Every inference answers an error of the client, without CUDA text.
    F35 {
        /// HTTP status: 400, 404 or 422.
        #[serde(default = "status_404")]
        status: u16,
    },
    /// One of several jobs at a time never ends and keeps its share; the others complete.
    F38 {},
    /// Unary gRPC inferences answer an error in the headers alone.
    F39 {
        /// gRPC status code, 1 to 16.
        #[serde(default = "code_13")]
        code: i32,
        /// Which CUDA error the message shows.
        #[serde(default)]
        signature: Signature,
        /// The message, instead of a CUDA error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Streamed replies stop and stay open.
    F40 {
        /// Messages, or pieces of audio over HTTP, before the silence.
        #[serde(default = "messages_1")]
        after_messages: u64,
    },
    /// The process ends with code 1 and a class D text on stderr.
    F41 {
        /// From the trigger, or from the start when it comes from the state file.
        #[serde(default)]
        delay_s: f64,
    },
    /// An inference whose request has a text answers an error that repeats it.
    F42 {
        /// HTTP status: 400, 422 or 500.
        #[serde(default = "status_400")]
        status: u16,
    },
    /// The sizes in the header of synthesized WAV files are open, as a streaming writer leaves them.
    F43 {
        /// What they are.
        #[serde(default)]
        variant: OpenSizes,
    },
    /// As F1 once a client has left while its inference ran.
    F45 {
        /// Which error the body shows.
        #[serde(default)]
        signature: Signature,
    },
}

fn status_500() -> u16 {
    500
}

fn status_503() -> u16 {
    503
}

fn status_400() -> u16 {
    400
}

fn status_404() -> u16 {
    404
}

fn code_13() -> i32 {
    13
}

fn seconds_15() -> f64 {
    15.0
}

fn seconds_20() -> f64 {
    20.0
}

fn seconds_60() -> f64 {
    60.0
}

fn messages_1() -> u64 {
    1
}

fn limit_2() -> usize {
    2
}

fn factor_4() -> f64 {
    4.0
}

fn megabytes_8() -> usize {
    8
}

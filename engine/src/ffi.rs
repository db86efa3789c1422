//! The only unsafe code: libpocketsphinx behind [`Recognizer`], libflite behind [`Voices`], and mapped files.
//!
//! Declarations are written by hand from `pocketsphinx.h` (5 prealpha), `cmd_ln.h`, `flite.h`, `cst_audio.h`,
//! `cst_voice.h` and `cst_wave.h` (flite 2.2), for the few functions used.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_float, c_int, c_void};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use parking_lot::Mutex;

pub mod analysis;

/// What the speech libraries refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libpocketsphinx could not load its models.
    #[error("unable to load the recognition model from {0}")]
    Model(PathBuf),
    /// libpocketsphinx refused an utterance.
    #[error("recognition failed in {0}")]
    Recognize(&'static str),
    /// libflite could not register a voice or refused a text.
    #[error("synthesis with voice {0} failed")]
    Synthesize(&'static str),
}

/// Maps a file into memory for the rest of the process, so that processes that map it share its pages.
///
/// # Errors
/// When the system refuses.
pub fn map(file: &std::fs::File) -> std::io::Result<&'static [u8]> {
    // SAFETY: the files that are mapped are written under another name and moved into place, never changed in place.
    let mapped = unsafe { memmap2::Mmap::map(file)? };
    Ok(Box::leak(Box::new(mapped)))
}

/// One piece of a hypothesis: a word or a filler such as `<sil>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// As the dictionary has it, with a pronunciation suffix such as `(2)`.
    pub text: String,
    /// First frame, of 10 ms.
    pub start_frame: u32,
    /// The frame after the last one.
    pub end_frame: u32,
    /// Posterior probability, 0 to 1.
    pub confidence: f64,
}

/// A loaded pocketsphinx decoder: US English, 16 kHz. It stays on the thread that made it.
pub struct Recognizer {
    decoder: NonNull<c_void>,
    config: NonNull<c_void>,
}

impl Recognizer {
    /// Loads acoustic model, language model and dictionary from a directory laid out as Debian's
    /// `pocketsphinx-en-us` (about 0.3 s).
    ///
    /// # Errors
    /// [`Error::Model`] when a file is missing or unreadable.
    pub fn load(models: &Path) -> Result<Self, Error> {
        let refuse = || Error::Model(models.to_path_buf());
        let path = |name: &str| models.join(name).to_string_lossy().into_owned();
        let options = [
            "speechstack-engine".to_owned(),
            "-hmm".into(),
            path("en-us"),
            "-lm".into(),
            path("en-us.lm.bin"),
            "-dict".into(),
            path("cmudict-en-us.dict"),
            // Dropped silence would shift the word times; the caller cuts at pauses itself.
            "-remove_silence".into(),
            "no".into(),
            // A fifth less work at the same word error.
            "-maxwpf".into(),
            "20".into(),
            "-maxhmmpf".into(),
            "5000".into(),
        ];
        let options: Vec<CString> = options.into_iter().map(c_string).collect();
        let arguments: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let count = c_int::try_from(arguments.len()).map_err(|_| refuse())?;
        // SAFETY: the argument array and its strings outlive the call, which copies them; both results are
        // checked for null; on failure the config is released once.
        unsafe {
            err_set_logfp(ptr::null_mut());
            let config = cmd_ln_parse_r(ptr::null_mut(), ps_args(), count, arguments.as_ptr(), 1);
            let config = NonNull::new(config).ok_or_else(refuse)?;
            match NonNull::new(ps_init(config.as_ptr())) {
                Some(decoder) => Ok(Self { decoder, config }),
                None => {
                    cmd_ln_free_r(config.as_ptr());
                    Err(refuse())
                }
            }
        }
    }

    /// Recognizes one utterance of 16 kHz mono. Keep it under about 30 s: memory grows with length.
    ///
    /// Every call starts a new stream with means taken over the whole utterance, so that the same samples always
    /// give the same words.
    ///
    /// # Errors
    /// [`Error::Recognize`] when the decoder refuses the utterance.
    pub fn recognize(&mut self, pcm: &[i16]) -> Result<Vec<Token>, Error> {
        let decoder = self.decoder.as_ptr();
        let mut tokens = Vec::new();
        // SAFETY: `decoder` is live and used by this thread only; `pcm` outlives the call; strings of a segment
        // are copied before the iterator moves on; the iterator frees itself at its end.
        unsafe {
            if ps_start_stream(decoder) < 0 || ps_start_utt(decoder) < 0 {
                return Err(Error::Recognize("ps_start_utt"));
            }
            let processed = ps_process_raw(decoder, pcm.as_ptr(), pcm.len(), 0, 1);
            if ps_end_utt(decoder) < 0 || processed < 0 {
                return Err(Error::Recognize("ps_process_raw"));
            }
            let scale = ps_get_logmath(decoder);
            let mut segment = ps_seg_iter(decoder);
            while !segment.is_null() {
                let (mut first, mut last) = (0, 0);
                ps_seg_frames(segment, &raw mut first, &raw mut last);
                let posterior = ps_seg_prob(segment, ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
                tokens.push(Token {
                    text: CStr::from_ptr(ps_seg_word(segment)).to_string_lossy().into_owned(),
                    start_frame: u32::try_from(first).unwrap_or(0),
                    end_frame: u32::try_from(last + 1).unwrap_or(0),
                    confidence: logmath_exp(scale, posterior).clamp(0.0, 1.0),
                });
                segment = ps_seg_next(segment);
            }
        }
        Ok(tokens)
    }
}

impl Drop for Recognizer {
    fn drop(&mut self) {
        // SAFETY: both were made by `load` and are released once; the decoder holds its own reference.
        unsafe {
            ps_free(self.decoder.as_ptr());
            cmd_ln_free_r(self.config.as_ptr());
        }
    }
}

/// A voice of libflite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Voice {
    /// Female, US English.
    Slt,
    /// Male, US English.
    Rms,
    /// Male, Scottish English.
    Awb,
    /// Male, US English, diphone synthesis.
    Kal16,
}

impl Voice {
    /// All voices.
    pub const ALL: [Self; 4] = [Self::Slt, Self::Rms, Self::Awb, Self::Kal16];

    /// flite's name of the voice.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slt => "slt",
            Self::Rms => "rms",
            Self::Awb => "awb",
            Self::Kal16 => "kal16",
        }
    }

    fn register(self) -> *mut VoiceHead {
        // SAFETY: no arguments are read; every caller holds `FLITE`, and a second call returns the first voice.
        unsafe {
            match self {
                Self::Slt => register_cmu_us_slt(ptr::null()),
                Self::Rms => register_cmu_us_rms(ptr::null()),
                Self::Awb => register_cmu_us_awb(ptr::null()),
                Self::Kal16 => register_cmu_us_kal16(ptr::null()),
            }
        }
    }
}

/// flite keeps voices in globals and counts references without atomics: one user at a time in a process.
static FLITE: Mutex<()> = Mutex::new(());

/// The loaded flite voices.
#[derive(Debug)]
pub struct Voices {
    shared: bool,
}

impl Voices {
    /// The rate of all of them, in Hz.
    pub const RATE_HZ: u32 = 16_000;

    /// Registers all voices (a few milliseconds; they are linked in). `shared` is for several users: a text is then made in
    /// whole before its samples are handed out, so that a slow taker holds up no other user.
    ///
    /// # Errors
    /// [`Error::Synthesize`] names the voice that is missing.
    pub fn load(shared: bool) -> Result<Self, Error> {
        let _only_user = FLITE.lock();
        // SAFETY: called under the lock.
        unsafe { flite_init() };
        match Voice::ALL.into_iter().find(|voice| voice.register().is_null()) {
            Some(missing) => Err(Error::Synthesize(missing.name())),
            None => Ok(Self { shared }),
        }
    }

    /// Speaks `text`, handing samples to `sink` as they are made, in pieces of about 65 ms, with their rate in Hz.
    /// `stretch` multiplies durations. A `Break` from `sink` ends the synthesis there.
    ///
    /// # Errors
    /// [`Error::Synthesize`] when flite refuses.
    pub fn speak(
        &mut self,
        voice: Voice,
        stretch: f32,
        text: &str,
        sink: &mut dyn FnMut(&[i16], u32) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if !self.shared {
            return Self::synthesize(voice, stretch, text, sink);
        }
        let mut pieces = Vec::new();
        Self::synthesize(voice, stretch, text, &mut |piece, rate_hz| {
            pieces.push((piece.to_vec(), rate_hz));
            ControlFlow::Continue(())
        })?;
        let _stopped = pieces.iter().try_for_each(|(piece, rate_hz)| sink(piece, *rate_hz));
        Ok(())
    }

    /// Holds the only lock on flite until `sink` has all samples.
    fn synthesize(
        voice: Voice,
        stretch: f32,
        text: &str,
        sink: &mut dyn FnMut(&[i16], u32) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let refuse = Error::Synthesize(voice.name());
        let text = c_string(speakable(text));
        let _only_user = FLITE.lock();
        let head = voice.register();
        let mut outlet = Outlet { sink, stopped: false };
        // SAFETY: under the lock no other thread touches the voice. The voice owns `info` from `feat_set` until
        // `flite_feat_remove`, and `outlet` outlives the synthesis that calls back into it.
        unsafe {
            if head.is_null() {
                return Err(refuse);
            }
            let info = new_audio_streaming_info();
            if info.is_null() {
                return Err(refuse);
            }
            (*info).min_buffsize = 1024;
            (*info).callback = Some(on_samples);
            (*info).userdata = (&raw mut outlet).cast();
            let features = (*head).features;
            feat_set(features, c"streaming_info".as_ptr(), audio_streaming_info_val(info));
            flite_feat_set_float(features, c"duration_stretch".as_ptr(), stretch);
            flite_text_to_speech(text.as_ptr(), head, c"stream".as_ptr());
            flite_feat_remove(features, c"streaming_info".as_ptr());
        }
        Ok(())
    }
}

struct Outlet<'a> {
    sink: &'a mut dyn FnMut(&[i16], u32) -> ControlFlow<()>,
    stopped: bool,
}

extern "C" fn on_samples(
    wave: *const Wave,
    start: c_int,
    size: c_int,
    _last: c_int,
    info: *mut StreamInfo,
) -> c_int {
    const CONTINUE: c_int = 0;
    const STOP: c_int = -1;
    let (Ok(start), Ok(size)) = (usize::try_from(start), usize::try_from(size)) else { return STOP };
    // SAFETY: flite passes the wave under construction, of which `start..start + size` is finished, and the
    // info that `speak` set up; nothing keeps the slice.
    unsafe {
        let outlet = &mut *(*info).userdata.cast::<Outlet<'_>>();
        if outlet.stopped {
            return STOP;
        }
        if size == 0 || (*wave).samples.is_null() {
            return CONTINUE;
        }
        let samples = std::slice::from_raw_parts((*wave).samples.add(start), size);
        let rate = u32::try_from((*wave).sample_rate).unwrap_or(16_000);
        outlet.stopped = (outlet.sink)(samples, rate).is_break();
        if outlet.stopped { STOP } else { CONTINUE }
    }
}

/// What flite can be trusted with. It reads bytes as ASCII: typographic signs become plain ones, anything else foreign
/// a space. It keeps tokens and their punctuation in buffers of fixed size: both are cut short.
fn speakable(text: &str) -> String {
    const LONGEST_TOKEN: usize = 60;
    const LONGEST_PUNCTUATION: usize = 4;
    let mut safe = String::with_capacity(text.len());
    let (mut token, mut punctuation) = (0, 0);
    for sign in text.chars().map(plain) {
        punctuation = if sign.is_ascii_punctuation() { punctuation + 1 } else { 0 };
        if punctuation > LONGEST_PUNCTUATION {
            continue;
        }
        token = if sign.is_ascii_whitespace() { 0 } else { token + 1 };
        if token > LONGEST_TOKEN {
            safe.push(' ');
            token = 1;
        }
        safe.push(sign);
    }
    safe
}

fn plain(sign: char) -> char {
    match sign {
        '\u{2018}' | '\u{2019}' => '\'',
        '\u{201c}' | '\u{201d}' => '"',
        '\u{2013}' | '\u{2014}' | '\u{2026}' => ',',
        'à'..='å' => 'a',
        'è'..='ë' => 'e',
        'ì'..='ï' => 'i',
        'ò'..='ö' => 'o',
        'ù'..='ü' => 'u',
        'ç' => 'c',
        'ñ' => 'n',
        '\n' | ' '..='~' => sign,
        _ => ' ',
    }
}

/// A C string of everything before the first NUL.
fn c_string(text: String) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let end = error.nul_position();
        let mut bytes = error.into_vec();
        bytes.truncate(end);
        CString::new(bytes).unwrap_or_default()
    })
}

/// The head of `cst_voice`.
#[repr(C)]
struct VoiceHead {
    name: *const c_char,
    features: *mut c_void,
}

/// `cst_wave`.
#[repr(C)]
struct Wave {
    kind: *const c_char,
    sample_rate: c_int,
    num_samples: c_int,
    num_channels: c_int,
    samples: *mut i16,
}

/// `cst_audio_streaming_info`.
#[repr(C)]
struct StreamInfo {
    min_buffsize: c_int,
    callback: Option<extern "C" fn(*const Wave, c_int, c_int, c_int, *mut StreamInfo) -> c_int>,
    utterance: *const c_void,
    item: *const c_void,
    userdata: *mut c_void,
}

unsafe extern "C" {
    fn err_set_logfp(file: *mut c_void);
    fn cmd_ln_parse_r(
        config: *mut c_void,
        definitions: *const c_void,
        count: i32,
        arguments: *const *const c_char,
        strict: i32,
    ) -> *mut c_void;
    fn cmd_ln_free_r(config: *mut c_void) -> c_int;
    fn ps_args() -> *const c_void;
    fn ps_init(config: *mut c_void) -> *mut c_void;
    fn ps_free(decoder: *mut c_void) -> c_int;
    fn ps_start_stream(decoder: *mut c_void) -> c_int;
    fn ps_start_utt(decoder: *mut c_void) -> c_int;
    fn ps_process_raw(
        decoder: *mut c_void,
        samples: *const i16,
        count: usize,
        no_search: c_int,
        full_utterance: c_int,
    ) -> c_int;
    fn ps_end_utt(decoder: *mut c_void) -> c_int;
    fn ps_seg_iter(decoder: *mut c_void) -> *mut c_void;
    fn ps_seg_next(segment: *mut c_void) -> *mut c_void;
    fn ps_seg_word(segment: *mut c_void) -> *const c_char;
    fn ps_seg_frames(segment: *mut c_void, first: *mut c_int, last: *mut c_int);
    fn ps_seg_prob(segment: *mut c_void, acoustic: *mut i32, language: *mut i32, backoff: *mut i32) -> i32;
    fn ps_get_logmath(decoder: *mut c_void) -> *mut c_void;
    fn logmath_exp(scale: *mut c_void, logarithm: c_int) -> f64;

    fn flite_init() -> c_int;
    fn flite_text_to_speech(text: *const c_char, voice: *mut VoiceHead, outtype: *const c_char) -> c_float;
    fn flite_feat_set_float(features: *mut c_void, name: *const c_char, value: c_float);
    fn flite_feat_remove(features: *mut c_void, name: *const c_char) -> c_int;
    fn feat_set(features: *mut c_void, name: *const c_char, value: *const c_void);
    fn new_audio_streaming_info() -> *mut StreamInfo;
    fn audio_streaming_info_val(info: *mut StreamInfo) -> *const c_void;
    fn register_cmu_us_slt(directory: *const c_char) -> *mut VoiceHead;
    fn register_cmu_us_rms(directory: *const c_char) -> *mut VoiceHead;
    fn register_cmu_us_awb(directory: *const c_char) -> *mut VoiceHead;
    fn register_cmu_us_kal16(directory: *const c_char) -> *mut VoiceHead;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_made_plain_and_short_of_what_flite_overflows() {
        assert_eq!(speakable("Zo\u{eb} \u{2018}caf\u{e9}\u{2019}\u{2026} \u{65e5}!"), "Zoe 'cafe',  !");
        assert_eq!(speakable(&")".repeat(500)), "))))");
        let digits = speakable(&"9".repeat(500));
        assert!(digits.split(' ').all(|token| token.len() <= 60));
    }

    #[test]
    fn shared_voices_give_as_many_samples_and_stop_when_asked() {
        let speak = |shared, most: usize| {
            let mut samples: Vec<i16> = Vec::new();
            let mut voices = Voices::load(shared).unwrap();
            voices
                .speak(Voice::Kal16, 1.0, "good morning", &mut |piece, _| {
                    samples.extend_from_slice(piece);
                    if samples.len() >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
                .unwrap();
            samples.len()
        };
        let whole = speak(false, usize::MAX);
        assert!(whole > 8_000, "{whole}");
        assert_eq!(speak(true, usize::MAX), whole);
        let stopped = speak(true, 2_000);
        assert!((2_000..4_000).contains(&stopped), "{stopped}");
    }

    #[test]
    fn odd_texts_are_survived_by_every_voice() {
        let mut voices = Voices::load(false).unwrap();
        let odd =
            ["", "...", "(((((((((((((((((((((((", "\0", "1e999 0x1F %s%n", "<a href='x'>", "'s 's 's", "$,"];
        for voice in Voice::ALL {
            for text in odd {
                voices.speak(voice, 1.0, text, &mut |_, _| ControlFlow::Continue(())).unwrap();
            }
        }
    }
}

//! Subtitle cues, written as SRT and WebVTT.

/// One subtitle. Cues of one list start one after another and never overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    /// First moment on screen, in milliseconds.
    pub start_ms: i64,
    /// Last moment on screen, in milliseconds, after `start_ms`.
    pub end_ms: i64,
    /// Speaker label to show before the text.
    pub speaker: Option<String>,
    /// One or two lines of about 42 columns; only a word that is longer by itself makes a longer line.
    pub lines: Vec<String>,
}

/// Writes cues as SubRip text. A speaker stands before the text: `Speaker_0: Hello`.
pub fn srt(cues: &[Cue]) -> String {
    let mut out = String::new();
    for (index, cue) in cues.iter().enumerate() {
        let prefix = cue.speaker.as_ref().map(|speaker| format!("{speaker}: ")).unwrap_or_default();
        // The format has no escapes; an arrow in the text would pass for a time line.
        let text = format!("{prefix}{}", cue.lines.join("\n")).replace("-->", "->");
        let (start, end) = (timestamp(cue.start_ms, ','), timestamp(cue.end_ms, ','));
        out.push_str(&format!("{}\n{start} --> {end}\n{text}\n\n", index + 1));
    }
    out
}

/// Writes cues as WebVTT. A speaker becomes a voice span: `<v Speaker_0>Hello`.
pub fn vtt(cues: &[Cue]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for cue in cues {
        let voice =
            cue.speaker.as_ref().map(|speaker| format!("<v {}>", escape(speaker))).unwrap_or_default();
        let text = escape(&cue.lines.join("\n"));
        let (start, end) = (timestamp(cue.start_ms, '.'), timestamp(cue.end_ms, '.'));
        out.push_str(&format!("{start} --> {end}\n{voice}{text}\n\n"));
    }
    out
}

fn timestamp(ms: i64, point: char) -> String {
    let (seconds, ms) = (ms.max(0) / 1000, ms.max(0) % 1000);
    format!("{:02}:{:02}:{:02}{point}{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

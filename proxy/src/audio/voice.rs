//! Voice activity: how likely each frame is speech.

/// Samples of a frame: 16 ms.
pub const FRAME: usize = 256;

/// Scores frames of 16 kHz audio one after the other.
pub trait Voice: Send {
    /// How likely the next frame is speech, 0 to 1. It has [`FRAME`] samples.
    fn score(&mut self, frame: &[i16]) -> f32;

    /// Forgets what came before.
    fn reset(&mut self);
}

/// A small recurrent network on the CPU, about 10 µs a frame and 8 KiB a session. It takes steady tones for speech.
pub struct Earshot(Box<earshot::Detector>);

impl Default for Earshot {
    fn default() -> Self {
        Self(earshot::Detector::default_boxed())
    }
}

impl Voice for Earshot {
    fn score(&mut self, frame: &[i16]) -> f32 {
        // The detector panics on any other length.
        if frame.len() == FRAME { self.0.predict_i16(frame) } else { 0.0 }
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_no_speech_and_a_wrong_frame_is_none() {
        let mut voice = Earshot::default();
        let loudest = (0..200).map(|_| voice.score(&[0; FRAME])).fold(0.0, f32::max);
        assert!(loudest < 0.3, "{loudest}");
        assert_eq!(voice.score(&[0; 10]), 0.0);
        voice.reset();
    }
}

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

/// A small recurrent network on the CPU, about 10 µs a frame, and 8 KiB from the first frame on. It takes steady tones for speech.
#[derive(Default)]
pub struct Earshot(Option<Box<earshot::Detector>>);

impl Voice for Earshot {
    fn score(&mut self, frame: &[i16]) -> f32 {
        // The detector panics on any other length.
        if frame.len() != FRAME {
            return 0.0;
        }
        self.0.get_or_insert_with(earshot::Detector::default_boxed).predict_i16(frame)
    }

    fn reset(&mut self) {
        self.0 = None;
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

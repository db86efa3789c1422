//! The `say` subcommand: speaks a line or a dialogue into a WAV file.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::ffi::{Error, Voice, Voices};
use crate::resample::{Resampler, to_float, to_pcm};
use crate::wav;

/// The rate of flite's voices, in Hz.
const NATIVE_HZ: u32 = 16_000;

/// Arguments of `say`.
#[derive(Debug, clap::Args)]
pub struct SayArgs {
    /// Voice of lines that name none
    #[arg(long, value_enum, default_value = "slt")]
    pub voice: Voice,
    /// Sample rate of the file in Hz
    #[arg(long, default_value_t = NATIVE_HZ, value_parser = clap::value_parser!(u32).range(8_000..=48_000))]
    pub rate: u32,
    /// Pause between lines in seconds
    #[arg(long, default_value_t = 0.4)]
    pub pause: f32,
    /// File to write
    #[arg(long, short)]
    pub out: PathBuf,
    /// Lines to speak; "rms: good morning" picks a voice for one line
    #[arg(required = true)]
    pub lines: Vec<String>,
}

/// Speaks all lines into the file.
///
/// # Errors
/// When the pause is no duration, synthesis fails or the file cannot be written.
pub fn run(args: &SayArgs) -> anyhow::Result<()> {
    if !(0.0..=60.0).contains(&args.pause) {
        bail!("--pause must be 0 to 60 seconds");
    }
    let mut voices = Voices::load(false)?;
    let mut samples = Vec::new();
    for (index, line) in args.lines.iter().enumerate() {
        if index > 0 {
            samples.resize(samples.len() + (args.pause * NATIVE_HZ as f32) as usize, 0);
        }
        let (voice, text) = voice_of(line).unwrap_or((args.voice, line));
        samples.extend(speak(&mut voices, voice, text)?);
    }
    let mut resampler = Resampler::new(NATIVE_HZ, args.rate)?;
    let (mut floats, mut converted) = (Vec::new(), Vec::new());
    to_float(&samples, &mut floats);
    resampler.push(&floats, &mut converted);
    resampler.finish(&mut converted);
    let samples: Vec<i16> = converted.into_iter().map(to_pcm).collect();
    std::fs::write(&args.out, wav::encode(&samples, args.rate))
        .with_context(|| format!("unable to write {}", args.out.display()))
}

/// All samples of one text at 16 kHz.
///
/// # Errors
/// When flite refuses.
pub fn speak(voices: &mut Voices, voice: Voice, text: &str) -> Result<Vec<i16>, Error> {
    let mut samples = Vec::new();
    voices.speak(voice, 1.0, text, &mut |piece, _| {
        samples.extend_from_slice(piece);
        ControlFlow::Continue(())
    })?;
    Ok(samples)
}

fn voice_of(line: &str) -> Option<(Voice, &str)> {
    let (name, text) = line.split_once(':')?;
    Some((Voice::from_str(name.trim(), true).ok()?, text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialogue_is_written_at_the_rate_asked_for() {
        let out = std::env::temp_dir().join(format!("speechstack-say-{}.wav", std::process::id()));
        let lines =
            vec!["slt: hello there".into(), "rms: good morning".into(), "note: this has no voice".into()];
        let args = SayArgs { voice: Voice::Awb, rate: 22_050, pause: 0.4, out: out.clone(), lines };
        run(&args).unwrap();
        let file = std::fs::read(&out).unwrap();
        std::fs::remove_file(&out).unwrap();
        assert_eq!(&file[24..28], 22_050u32.to_le_bytes());
        assert!(file.len() > 22_050 * 2 * 3, "{}", file.len());
        assert_eq!(voice_of("kal16 : hi"), Some((Voice::Kal16, "hi")));
        assert_eq!(voice_of("note: this"), None);
    }
}

//! The `check` subcommand: what a folder of a model holds, whether it runs, and how fast.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;

use crate::ffi::{Voice, Voices};
use crate::neural::net::Threads;
use crate::neural::parakeet::Parakeet;
use crate::neural::parakeet::layout::{self, Decoder};
use crate::say;

/// What is spoken to the model.
const TEXT: &str =
    "please call me back tomorrow morning at nine, we need to finish the report before the meeting starts";

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Folder of an NVIDIA Parakeet TDT in ONNX, as onnx-asr or sherpa-onnx have it
    #[arg(long, value_name = "DIR")]
    pub model_dir: PathBuf,
    /// Threads of the networks
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: u8,
}

/// Prints what was found, and what the model makes of one synthetic sentence.
///
/// # Errors
/// When the folder holds no model that runs.
#[allow(clippy::print_stdout)]
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let folder = args.model_dir.display();
    let layout = layout::find(&args.model_dir).with_context(|| {
        format!("{folder} has neither encoder-model, decoder_joint-model and vocab.txt nor encoder, decoder, joiner and tokens.txt")
    })?;
    let kind = match layout.decoder {
        Decoder::Whole(_) => "one decoder network (onnx-asr)",
        Decoder::Split(_, _) => "decoder and joiner (sherpa-onnx)",
    };
    println!("found: Parakeet TDT, {kind}, weights of {} bits", if layout.quantized { 8 } else { 32 });
    let began = Instant::now();
    let parakeet = Parakeet::load(&layout, &Threads::new(usize::from(args.threads)))?;
    println!("loaded in {:.2} s into {}", began.elapsed().as_secs_f64(), parakeet.runtime());
    let samples = say::speak(&mut Voices::load(false)?, Voice::Slt, TEXT)?;
    let seconds = samples.len() as f64 / 16_000.0;
    // The first run prepares what later ones find.
    parakeet.words(&samples)?;
    let began = Instant::now();
    let words = parakeet.words(&samples)?;
    let took = began.elapsed().as_secs_f64();
    println!("ran: {seconds:.1} s of speech in {took:.2} s, {:.3} of real time", took / seconds);
    println!("said:  {TEXT}");
    println!("heard: {}", words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "));
    Ok(())
}

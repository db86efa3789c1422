//! Who of up to three speakers speaks when in a window of 10 s: the network segmentation-3.0 of pyannote ("Powerset multi-class
//! cross entropy loss for neural speaker diarization", 2023).

use std::f32::consts::PI;
use std::path::Path;

use rten::ValueOrView;
use rten_tensor::NdTensor;

use super::checkpoint::Checkpoint;
use super::graph::{Graph, Node, Setting};
use super::net::{Net, Threads};
use super::{Error, files};

/// Samples of a window, at 16 kHz.
pub const WINDOW: usize = 160_000;
/// Samples from frame to frame.
pub const STEP: usize = 270;
/// Samples before the middle of the first frame.
pub const FIRST: usize = 495;
/// Frames of a window.
pub const FRAMES: usize = 589;
/// Speakers that a window can tell apart.
pub const SPEAKERS: usize = 3;

/// The classes of a frame: which speakers speak.
const CLASSES: [[bool; SPEAKERS]; 7] = [
    [false, false, false],
    [true, false, false],
    [false, true, false],
    [false, false, true],
    [true, true, false],
    [true, false, true],
    [false, true, true],
];

/// Sizes of the layers.
const FILTERS: usize = 80;
const KERNEL: usize = 251;
const CHANNELS: usize = 60;
const HIDDEN: usize = 128;

/// Which speakers speak in each frame of a window.
pub type Frames = Vec<[bool; SPEAKERS]>;

/// The network, loaded.
pub struct Segmentation {
    net: Net,
}

impl Segmentation {
    /// Loads the published file of a folder.
    ///
    /// # Errors
    /// When it cannot be read, is not the published one, or malformed.
    pub fn load(models: &Path, threads: &Threads) -> Result<Self, Error> {
        const NAME: &str = "segmentation-3.0/pytorch_model.bin";
        let checkpoint = Checkpoint::read(NAME, &files::read(models, NAME)?)?;
        let net = Net::load("segmentation", build(&checkpoint)?, None, threads)?;
        Ok(Self { net })
    }

    /// The frames of a window of at most 10 s; what lacks is silence.
    ///
    /// # Errors
    /// When the network fails.
    pub fn window(&self, samples: &[i16]) -> Result<Frames, Error> {
        let mut floats: Vec<f32> =
            samples.iter().take(WINDOW).map(|sample| f32::from(*sample) / 32_768.0).collect();
        floats.resize(WINDOW, 0.0);
        let input = NdTensor::from_data([1, 1, WINDOW], floats);
        let outputs = self.net.run(vec![ValueOrView::from(input)])?;
        let (_, scores) = self.net.floats(outputs.into_iter().next())?;
        if scores.len() != FRAMES * CLASSES.len() {
            return Err(self.net.unexpected());
        }
        let class = |scores: &[f32]| {
            let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or(0);
            CLASSES[best]
        };
        Ok(scores.chunks_exact(CLASSES.len()).map(class).collect())
    }
}

/// Samples `[1, 1, WINDOW]` to scores of the classes `[FRAMES, 7]`.
fn build(weights: &Checkpoint) -> Result<Vec<u8>, Error> {
    let mut graph = Graph::default();
    let samples = graph.input("samples", false, &[1, 1, WINDOW]);
    let constant = |graph: &mut Graph, name: &str, dims: &[usize]| {
        Ok::<_, Error>(graph.floats(dims, &weights.tensor(name, dims)?.values))
    };
    let mut x = normalize(&mut graph, weights, &samples, "sincnet.wav_norm1d", 1)?;
    let filters = graph.floats(&[FILTERS, 1, KERNEL], &sinc_filters(weights)?);
    let settings = [("kernel_shape", Setting::Ints(&[KERNEL as i64])), ("strides", Setting::Ints(&[10]))];
    x = graph.apply("Conv", &[&x, &filters], &settings);
    x = graph.apply("Abs", &[&x], &[]);
    for layer in 0..3 {
        let channels = if layer == 0 { FILTERS } else { CHANNELS };
        if layer > 0 {
            let from = if layer == 1 { FILTERS } else { CHANNELS };
            let name = format!("sincnet.conv1d.{layer}");
            let weight = constant(&mut graph, &format!("{name}.weight"), &[CHANNELS, from, 5])?;
            let bias = constant(&mut graph, &format!("{name}.bias"), &[CHANNELS])?;
            x = graph.apply("Conv", &[&x, &weight, &bias], &[("kernel_shape", Setting::Ints(&[5]))]);
        }
        let settings = [("kernel_shape", Setting::Ints(&[3])), ("strides", Setting::Ints(&[3]))];
        x = graph.apply("MaxPool", &[&x], &settings);
        x = normalize(&mut graph, weights, &x, &format!("sincnet.norm1d.{layer}"), channels)?;
        x = leaky(&mut graph, &x);
    }
    x = graph.transpose(&x, &[2, 0, 1]);
    for layer in 0..4 {
        x = recurrent(&mut graph, weights, &x, layer)?;
    }
    x = graph.reshape(&x, &[-1, 2 * HIDDEN as i64]);
    for (name, from, to) in
        [("linear.0", 2 * HIDDEN, HIDDEN), ("linear.1", HIDDEN, HIDDEN), ("classifier", HIDDEN, 7)]
    {
        let weight = constant(&mut graph, &format!("{name}.weight"), &[to, from])?;
        let bias = constant(&mut graph, &format!("{name}.bias"), &[to])?;
        x = graph.apply("Gemm", &[&x, &weight, &bias], &[("transB", Setting::Int(1))]);
        if name != "classifier" {
            x = leaky(&mut graph, &x);
        }
    }
    graph.output(&x);
    graph.onnx("segmentation")
}

fn leaky(graph: &mut Graph, x: &Node) -> Node {
    graph.apply("LeakyRelu", &[x], &[("alpha", Setting::Float(0.01))])
}

fn normalize(
    graph: &mut Graph,
    weights: &Checkpoint,
    x: &Node,
    name: &str,
    channels: usize,
) -> Result<Node, Error> {
    let scale = graph.floats(&[channels], &weights.tensor(&format!("{name}.weight"), &[channels])?.values);
    let bias = graph.floats(&[channels], &weights.tensor(&format!("{name}.bias"), &[channels])?.values);
    Ok(graph.apply("InstanceNormalization", &[x, &scale, &bias], &[("epsilon", Setting::Float(1e-5))]))
}

/// A recurrent layer in both directions, `[frames, 1, n]` to `[frames, 1, 2 * HIDDEN]`.
fn recurrent(graph: &mut Graph, weights: &Checkpoint, x: &Node, layer: usize) -> Result<Node, Error> {
    let from = if layer == 0 { CHANNELS } else { 2 * HIDDEN };
    let join = |kinds: &[&str], width: usize| {
        let mut values = Vec::new();
        for direction in ["", "_reverse"] {
            for kind in kinds {
                let name = format!("lstm.{kind}_l{layer}{direction}");
                let dims: &[usize] = if width == 1 { &[4 * HIDDEN] } else { &[4 * HIDDEN, width] };
                let tensor = weights.tensor(&name, dims)?;
                // PyTorch's order of gates is input, forget, cell, output; ONNX's is input, output, forget, cell.
                for gate in [0, 3, 1, 2] {
                    values.extend_from_slice(
                        &tensor.values[gate * HIDDEN * width..(gate + 1) * HIDDEN * width],
                    );
                }
            }
        }
        Ok::<_, Error>(values)
    };
    let (input, hidden) = (join(&["weight_ih"], from)?, join(&["weight_hh"], HIDDEN)?);
    let bias = join(&["bias_ih", "bias_hh"], 1)?;
    let input = graph.floats(&[2, 4 * HIDDEN, from], &input);
    let hidden = graph.floats(&[2, 4 * HIDDEN, HIDDEN], &hidden);
    let bias = graph.floats(&[2, 8 * HIDDEN], &bias);
    let settings =
        [("hidden_size", Setting::Int(HIDDEN as i64)), ("direction", Setting::Text("bidirectional"))];
    let states = graph.apply("LSTM", &[x, &input, &hidden, &bias], &settings);
    // Steps, directions, batch, hidden.
    let states = graph.transpose(&states, &[0, 2, 1, 3]);
    Ok(graph.reshape(&states, &[0, 1, 2 * HIDDEN as i64]))
}

/// The first layer: 40 band-pass filters by their bounds, each as a cosine and as a sine ("Speaker Recognition from Raw Waveform
/// with SincNet", 2018; in the form of the library asteroid-filterbanks).
fn sinc_filters(weights: &Checkpoint) -> Result<Vec<f32>, Error> {
    const RATE_HZ: f32 = 16_000.0;
    const MIN_LOW_HZ: f32 = 50.0;
    const MIN_BAND_HZ: f32 = 50.0;
    let half = KERNEL / 2;
    let pairs = FILTERS / 2;
    let lows = &weights.tensor("sincnet.conv1d.0.filterbank.low_hz_", &[pairs, 1])?.values;
    let bands = &weights.tensor("sincnet.conv1d.0.filterbank.band_hz_", &[pairs, 1])?.values;
    let mut filters = vec![0.0; FILTERS * KERNEL];
    for pair in 0..pairs {
        let low = MIN_LOW_HZ + lows[pair].abs();
        let high = (low + MIN_BAND_HZ + bands[pair].abs()).clamp(MIN_LOW_HZ, RATE_HZ / 2.0);
        let band = high - low;
        for place in 0..half {
            let time = 2.0 * PI * (place as f32 - half as f32) / RATE_HZ;
            let window = 0.54 - 0.46 * (2.0 * PI * place as f32 / (KERNEL - 1) as f32).cos();
            let cosine = ((high * time).sin() - (low * time).sin()) / (time / 2.0) * window / (2.0 * band);
            let sine = ((low * time).cos() - (high * time).cos()) / (time / 2.0) * window / (2.0 * band);
            let row = |filter: usize, place: usize| filter * KERNEL + place;
            filters[row(pair, place)] = cosine;
            filters[row(pair, KERNEL - 1 - place)] = cosine;
            filters[row(pairs + pair, place)] = sine;
            filters[row(pairs + pair, KERNEL - 1 - place)] = -sine;
        }
        filters[pair * KERNEL + half] = 1.0;
    }
    Ok(filters)
}

//! Whose voice it is: 192 numbers by the network CAM++ of 3D-Speaker ("CAM++: A Fast and Efficient Network for Speaker
//! Verification Using Context-Aware Masking", 2023). Prints of one voice point in one direction.

use std::path::Path;

use rten::ValueOrView;
use rten_tensor::NdTensor;

use super::checkpoint::Checkpoint;
use super::graph::{Graph, Node, Setting};
use super::net::{Net, Threads};
use super::spectrum::{MelBank, Scale, Window};
use super::{Error, files};

/// Numbers of a print.
pub const PRINT: usize = 192;
/// Mel bands.
const BANDS: usize = 80;
/// Samples of a frame's transform, of a frame, and between frames, at 16 kHz.
const SIZE: usize = 512;
const FRAME: usize = 400;
const HOP: usize = 160;
/// Longer speech is cut: 20 s say enough of a voice.
const LONGEST: usize = 20 * 16_000;
/// Frames that have a context of their own.
const SEGMENT: usize = 100;
/// Channels of the layers.
const HEAD: usize = 32;
const GROWTH: usize = 32;
const BOTTLENECK: usize = 128;
const OUT: usize = 512;
/// Layers of each block, and how far their frames are apart.
const BLOCKS: [(usize, usize); 3] = [(12, 1), (24, 2), (16, 2)];
/// The name for errors.
const NAME: &str = "campplus/campplus_cn_en_common.pt";

/// The network, loaded.
pub struct Voiceprints {
    net: Net,
    /// The last layer: weights `[PRINT, 2 * OUT]`, and mean and deviation of its results.
    dense: Vec<f32>,
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// A graph with the checkpoint that it takes its weights from.
struct Builder<'a> {
    graph: Graph,
    weights: &'a Checkpoint,
}

impl Voiceprints {
    /// Loads the published file of a folder.
    ///
    /// # Errors
    /// When it cannot be read, is not the published one, or malformed.
    pub fn load(models: &Path, threads: &Threads) -> Result<Self, Error> {
        let weights = Checkpoint::read(NAME, &files::read(models, NAME)?)?;
        let variance = &weights.tensor("xvector.dense.nonlinear.batchnorm.running_var", &[PRINT])?.values;
        Ok(Self {
            net: Net::load("voice print", build(&weights)?, None, threads)?,
            dense: weights.tensor("xvector.dense.linear.weight", &[PRINT, 2 * OUT, 1])?.values.clone(),
            mean: weights.tensor("xvector.dense.nonlinear.batchnorm.running_mean", &[PRINT])?.values.clone(),
            deviation: variance.iter().map(|variance| (variance + 1e-5).sqrt()).collect(),
        })
    }

    /// The print of speech of one voice, of length 1; `None` when it is shorter than some frames.
    ///
    /// # Errors
    /// When the network fails.
    pub fn print(&self, samples: &[i16]) -> Result<Option<Vec<f32>>, Error> {
        const FEWEST: usize = 10;
        let (frames, features) = features(&samples[..samples.len().min(LONGEST)]);
        if frames < FEWEST {
            return Ok(None);
        }
        let steps = (frames - 1) / 2 + 1;
        let segments = steps.div_ceil(SEGMENT);
        let (mut pool, mut spread) = (vec![0.0; steps * segments], vec![0.0; segments * steps]);
        for segment in 0..segments {
            let inside = segment * SEGMENT..((segment + 1) * SEGMENT).min(steps);
            for step in 0..steps {
                let near = if inside.contains(&step) { (inside.len() as f32).recip() } else { 0.0 };
                pool[step * segments + segment] = near + (steps as f32).recip();
                spread[segment * steps + step] = if inside.contains(&step) { 1.0 } else { 0.0 };
            }
        }
        let inputs = vec![
            ValueOrView::from(NdTensor::from_data([1, 1, BANDS, frames], features)),
            ValueOrView::from(NdTensor::from_data([steps, segments], pool)),
            ValueOrView::from(NdTensor::from_data([segments, steps], spread)),
        ];
        let (dims, values) = self.net.floats(self.net.run(inputs)?.into_iter().next())?;
        if dims != [1, OUT, steps] {
            return Err(self.net.unexpected());
        }
        let mut statistics = vec![0.0; 2 * OUT];
        for (channel, row) in values.chunks_exact(steps).enumerate() {
            let mean = row.iter().sum::<f32>() / steps as f32;
            let squares: f32 = row.iter().map(|value| (value - mean).powi(2)).sum();
            statistics[channel] = mean;
            statistics[OUT + channel] = (squares / (steps - 1).max(1) as f32).sqrt();
        }
        let number = |index: usize| {
            let row = &self.dense[index * 2 * OUT..(index + 1) * 2 * OUT];
            let sum: f32 = row.iter().zip(&statistics).map(|(weight, value)| weight * value).sum();
            (sum - self.mean[index]) / self.deviation[index]
        };
        let mut print: Vec<f32> = (0..PRINT).map(number).collect();
        let length = print.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-9);
        print.iter_mut().for_each(|value| *value /= length);
        Ok(Some(print))
    }
}

/// Kaldi's mel spectrum without its mean, by bands, and its number of frames.
fn features(samples: &[i16]) -> (usize, Vec<f32>) {
    let mut bank = MelBank::new(SIZE, Window::Povey(FRAME), Scale::Kaldi, BANDS);
    let frames = if samples.len() < FRAME { 0 } else { (samples.len() - FRAME) / HOP + 1 };
    let mut features = vec![0.0; BANDS * frames];
    let (mut frame, mut energies) = ([0.0; FRAME], [0.0; BANDS]);
    for index in 0..frames {
        let from = &samples[index * HOP..index * HOP + FRAME];
        frame.iter_mut().zip(from).for_each(|(to, from)| *to = f32::from(*from) / 32_768.0);
        bank.energies(&frame, &mut energies);
        for (band, energy) in energies.iter().enumerate() {
            features[band * frames + index] = energy.max(f32::EPSILON).ln();
        }
    }
    for row in features.chunks_exact_mut(frames.max(1)) {
        let mean = row.iter().sum::<f32>() / frames.max(1) as f32;
        row.iter_mut().for_each(|value| *value -= mean);
    }
    (frames, features)
}

/// Features `[1, 1, BANDS, T]`, how steps are averaged to segments `[S, n]` and spread again `[n, S]`, to `[1, OUT, S]`.
fn build(weights: &Checkpoint) -> Result<Vec<u8>, Error> {
    let mut b = Builder { graph: Graph::default(), weights };
    let features = b.graph.input("features", false, &[1, 1, BANDS, 0]);
    let pool = b.graph.input("pool", false, &[0, 0]);
    let spread = b.graph.input("spread", false, &[0, 0]);
    let mut x = b.convolution(&features, "head.conv1", &[HEAD, 1, 3, 3], &[1, 1])?;
    x = b.active(&x, "head.bn1", HEAD)?;
    for (layer, block) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
        x = b.residual(&x, &format!("head.layer{layer}.{block}"), block == 0)?;
    }
    x = b.convolution(&x, "head.conv2", &[HEAD, HEAD, 3, 3], &[2, 1])?;
    x = b.active(&x, "head.bn2", HEAD)?;
    let mut channels = HEAD * BANDS / 8;
    x = b.graph.reshape(&x, &[1, channels as i64, -1]);
    x = b.line(&x, "xvector.tdnn.linear", &[BOTTLENECK, channels, 5], 1, 2)?;
    x = b.active(&x, "xvector.tdnn.nonlinear.batchnorm", BOTTLENECK)?;
    channels = BOTTLENECK;
    for (block, (layers, apart)) in BLOCKS.into_iter().enumerate() {
        for layer in 1..=layers {
            let name = format!("xvector.block{}.tdnnd{layer}", block + 1);
            let grown = b.dense(&x, &name, channels, apart, (&pool, &spread))?;
            x = b.graph.apply("Concat", &[&x, &grown], &[("axis", Setting::Int(1))]);
            channels += GROWTH;
        }
        let name = format!("xvector.transit{}", block + 1);
        x = b.active(&x, &format!("{name}.nonlinear.batchnorm"), channels)?;
        x = b.line(&x, &format!("{name}.linear"), &[channels / 2, channels, 1], 1, 1)?;
        channels /= 2;
    }
    x = b.active(&x, "xvector.out_nonlinear.batchnorm", OUT)?;
    b.graph.output(&x);
    b.graph.onnx("voice print")
}

impl Builder<'_> {
    fn weight(&mut self, name: &str, dims: &[usize]) -> Result<Node, Error> {
        Ok(self.graph.floats(dims, &self.weights.tensor(name, dims)?.values))
    }

    /// A two-dimensional convolution that keeps the size but for its strides.
    fn convolution(
        &mut self,
        x: &Node,
        name: &str,
        dims: &[usize; 4],
        strides: &[i64; 2],
    ) -> Result<Node, Error> {
        let weight = self.weight(&format!("{name}.weight"), dims)?;
        let pad = (dims[2] / 2) as i64;
        let settings = [
            ("kernel_shape", Setting::Ints(&[dims[2] as i64, dims[3] as i64])),
            ("pads", Setting::Ints(&[pad; 4])),
            ("strides", Setting::Ints(strides)),
        ];
        Ok(self.graph.apply("Conv", &[x, &weight], &settings))
    }

    /// A convolution over frames `apart` from each other that keeps the length but for its stride.
    fn line(
        &mut self,
        x: &Node,
        name: &str,
        dims: &[usize; 3],
        apart: usize,
        stride: i64,
    ) -> Result<Node, Error> {
        let weight = self.weight(&format!("{name}.weight"), dims)?;
        let pad = (dims[2] / 2 * apart) as i64;
        let settings = [
            ("kernel_shape", Setting::Ints(&[dims[2] as i64])),
            ("pads", Setting::Ints(&[pad, pad])),
            ("strides", Setting::Ints(&[stride])),
            ("dilations", Setting::Ints(&[apart as i64])),
        ];
        Ok(self.graph.apply("Conv", &[x, &weight], &settings))
    }

    fn normal(&mut self, x: &Node, name: &str, channels: usize) -> Result<Node, Error> {
        let parts = ["weight", "bias", "running_mean", "running_var"];
        let parts = parts.map(|part| self.weight(&format!("{name}.{part}"), &[channels]));
        let [scale, bias, mean, variance] = parts;
        let inputs = [x, &scale?, &bias?, &mean?, &variance?];
        Ok(self.graph.apply("BatchNormalization", &inputs, &[("epsilon", Setting::Float(1e-5))]))
    }

    fn active(&mut self, x: &Node, name: &str, channels: usize) -> Result<Node, Error> {
        let x = self.normal(x, name, channels)?;
        Ok(self.graph.apply("Relu", &[&x], &[]))
    }

    fn residual(&mut self, x: &Node, name: &str, halves: bool) -> Result<Node, Error> {
        let strides = if halves { [2, 1] } else { [1, 1] };
        let y = self.convolution(x, &format!("{name}.conv1"), &[HEAD, HEAD, 3, 3], &strides)?;
        let y = self.active(&y, &format!("{name}.bn1"), HEAD)?;
        let y = self.convolution(&y, &format!("{name}.conv2"), &[HEAD, HEAD, 3, 3], &[1, 1])?;
        let y = self.normal(&y, &format!("{name}.bn2"), HEAD)?;
        let sum = if halves {
            let short = self.convolution(x, &format!("{name}.shortcut.0"), &[HEAD, HEAD, 1, 1], &strides)?;
            let short = self.normal(&short, &format!("{name}.shortcut.1"), HEAD)?;
            self.graph.apply("Add", &[&y, &short], &[])
        } else {
            self.graph.apply("Add", &[&y, x], &[])
        };
        Ok(self.graph.apply("Relu", &[&sum], &[]))
    }

    /// A dense layer with a mask by its context, which is the same for all steps of a segment.
    fn dense(
        &mut self,
        x: &Node,
        name: &str,
        channels: usize,
        apart: usize,
        (pool, spread): (&Node, &Node),
    ) -> Result<Node, Error> {
        let x = self.active(x, &format!("{name}.nonlinear1.batchnorm"), channels)?;
        let x = self.line(&x, &format!("{name}.linear1"), &[BOTTLENECK, channels, 1], 1, 1)?;
        let x = self.active(&x, &format!("{name}.nonlinear2.batchnorm"), BOTTLENECK)?;
        let local =
            self.line(&x, &format!("{name}.cam_layer.linear_local"), &[GROWTH, BOTTLENECK, 3], apart, 1)?;
        let context = self.graph.apply("MatMul", &[&x, pool], &[]);
        let context =
            self.with_bias(&context, &format!("{name}.cam_layer.linear1"), &[BOTTLENECK / 2, BOTTLENECK, 1])?;
        let context = self.graph.apply("Relu", &[&context], &[]);
        let mask =
            self.with_bias(&context, &format!("{name}.cam_layer.linear2"), &[GROWTH, BOTTLENECK / 2, 1])?;
        let mask = self.graph.apply("Sigmoid", &[&mask], &[]);
        let mask = self.graph.apply("MatMul", &[&mask, spread], &[]);
        Ok(self.graph.apply("Mul", &[&local, &mask], &[]))
    }

    fn with_bias(&mut self, x: &Node, name: &str, dims: &[usize; 3]) -> Result<Node, Error> {
        let weight = self.weight(&format!("{name}.weight"), dims)?;
        let bias = self.weight(&format!("{name}.bias"), &dims[..1])?;
        Ok(self.graph.apply("Conv", &[x, &weight, &bias], &[("kernel_shape", Setting::Ints(&[1]))]))
    }
}

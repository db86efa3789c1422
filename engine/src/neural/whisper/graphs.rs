//! The three networks of Whisper base, built of its weights: the encoder, what the decoder keeps of the encoding, and one
//! step of the decoder ("Robust Speech Recognition via Large-Scale Weak Supervision", 2022).

use super::features::{BANDS, FRAMES};
use crate::neural::Error;
use crate::neural::graph::{Graph, Node, Setting};
use crate::neural::quantize;
use crate::neural::weights::Weights;

/// Width of all layers.
const WIDTH: usize = 512;
/// Heads of attention, each of `SIZE` numbers.
const HEADS: usize = 8;
const SIZE: usize = WIDTH / HEADS;
/// Layers of the encoder, and of the decoder.
pub const LAYERS: usize = 6;
/// Steps of 20 ms that the encoder gives.
pub const STEPS: usize = FRAMES / 2;
/// Tokens that the decoder has places for.
pub const PLACES: usize = 448;
/// Tokens that it knows.
pub const VOCABULARY: usize = 51_865;

/// The vector of each token.
const EMBEDDINGS: &str = "decoder/embeddings/weight";
/// Types of numbers, as ONNX counts them.
const FLOAT: i64 = 1;

/// A graph with the weights that it takes.
struct Builder<'a> {
    graph: Graph,
    weights: &'a Weights,
}

/// Spectrum `[1, BANDS, FRAMES]` to encoding `[STEPS, WIDTH]`.
///
/// # Errors
/// [`Error::Format`] when a weight is missing.
pub fn encoder(weights: &Weights) -> Result<Vec<u8>, Error> {
    let mut b = Builder { graph: Graph::default(), weights };
    let spectrum = b.graph.input("spectrum", false, &[1, BANDS, FRAMES]);
    let x = b.convolution(&spectrum, "encoder/conv1", BANDS, 1)?;
    let x = b.convolution(&x, "encoder/conv2", WIDTH, 2)?;
    let x = b.graph.transpose(&x, &[0, 2, 1]);
    let x = b.graph.reshape(&x, &[STEPS as i64, WIDTH as i64]);
    let places = b.weight("encoder/position_encodings/encodings", &[STEPS, WIDTH])?;
    let mut x = b.graph.apply("Add", &[&x, &places], &[]);
    for layer in 0..LAYERS {
        let name = format!("encoder/layer_{layer}");
        let normal = b.norm(&x, &format!("{name}/self_attention/layer_norm"))?;
        let all = b.linear(&normal, &format!("{name}/self_attention/linear_0"), WIDTH, 3 * WIDTH)?;
        let parts = b.split(&all, 3);
        let (q, k, v) = (b.heads(&parts[0], false), b.heads(&parts[1], true), b.heads(&parts[2], false));
        let (seen, _) = b.attend(&q, &k, &v);
        x = b.add_projected(&x, &seen, &format!("{name}/self_attention/linear_1"))?;
        x = b.feed_forward(&x, &name)?;
    }
    let x = b.norm(&x, "encoder/layer_norm")?;
    b.graph.output(&x);
    b.graph.onnx("whisper encoder")
}

/// Encoding to the keys `[HEADS, SIZE, STEPS]` and values `[HEADS, STEPS, SIZE]` of each layer of the decoder, in turn.
///
/// # Errors
/// [`Error::Format`] when a weight is missing.
pub fn memory(weights: &Weights) -> Result<Vec<u8>, Error> {
    let mut b = Builder { graph: Graph::default(), weights };
    let encoding = b.graph.input("encoding", false, &[STEPS, WIDTH]);
    for layer in 0..LAYERS {
        let both =
            b.linear(&encoding, &format!("decoder/layer_{layer}/attention/linear_1"), WIDTH, 2 * WIDTH)?;
        let parts = b.split(&both, 2);
        let (k, v) = (b.heads(&parts[0], true), b.heads(&parts[1], false));
        b.graph.output(&k);
        b.graph.output(&v);
    }
    b.graph.onnx("whisper memory")
}

/// One step: token `[1]`, its place `[1]`, the memory of the encoding, and keys and values of the tokens before it, to the
/// logits `[1, VOCABULARY]`, the attention `[HEADS, 1, STEPS]` of each layer, and all keys and values.
///
/// # Errors
/// [`Error::Format`] when a weight is missing.
pub fn step(weights: &Weights) -> Result<Vec<u8>, Error> {
    let mut b = Builder { graph: Graph::default(), weights };
    let token = b.graph.input("token", true, &[1]);
    let place = b.graph.input("place", true, &[1]);
    let input = |b: &mut Builder<'_>, name: String, dims: [usize; 3]| b.graph.input(&name, false, &dims);
    let memory: Vec<[Node; 2]> = (0..LAYERS)
        .map(|layer| {
            let k = input(&mut b, format!("memory_k{layer}"), [HEADS, SIZE, STEPS]);
            [k, input(&mut b, format!("memory_v{layer}"), [HEADS, STEPS, SIZE])]
        })
        .collect();
    let past: Vec<[Node; 2]> = (0..LAYERS)
        .map(|layer| {
            let k = input(&mut b, format!("past_k{layer}"), [HEADS, SIZE, 0]);
            [k, input(&mut b, format!("past_v{layer}"), [HEADS, 0, SIZE])]
        })
        .collect();
    let places = b.weight("decoder/position_encodings/encodings", &[PLACES, WIDTH])?;
    let embedded = b.embedding(&token)?;
    let placed = b.graph.apply("Gather", &[&places, &place], &[]);
    let mut x = b.graph.apply("Add", &[&embedded, &placed], &[]);
    let (mut attention, mut present) = (Vec::new(), Vec::new());
    for layer in 0..LAYERS {
        let name = format!("decoder/layer_{layer}");
        let normal = b.norm(&x, &format!("{name}/self_attention/layer_norm"))?;
        let all = b.linear(&normal, &format!("{name}/self_attention/linear_0"), WIDTH, 3 * WIDTH)?;
        let parts = b.split(&all, 3);
        // One token: its heads need no transposition.
        let q = b.graph.reshape(&parts[0], &[HEADS as i64, 1, SIZE as i64]);
        let k = b.graph.reshape(&parts[1], &[HEADS as i64, SIZE as i64, 1]);
        let v = b.graph.reshape(&parts[2], &[HEADS as i64, 1, SIZE as i64]);
        let k = b.graph.apply("Concat", &[&past[layer][0], &k], &[("axis", Setting::Int(2))]);
        let v = b.graph.apply("Concat", &[&past[layer][1], &v], &[("axis", Setting::Int(1))]);
        let (seen, _) = b.attend(&q, &k, &v);
        x = b.add_projected(&x, &seen, &format!("{name}/self_attention/linear_1"))?;
        present.extend([k, v]);
        let normal = b.norm(&x, &format!("{name}/attention/layer_norm"))?;
        let q = b.linear(&normal, &format!("{name}/attention/linear_0"), WIDTH, WIDTH)?;
        let q = b.graph.reshape(&q, &[HEADS as i64, 1, SIZE as i64]);
        let (seen, weights) = b.attend(&q, &memory[layer][0], &memory[layer][1]);
        x = b.add_projected(&x, &seen, &format!("{name}/attention/linear_2"))?;
        attention.push(weights);
        x = b.feed_forward(&x, &name)?;
    }
    let x = b.norm(&x, "decoder/layer_norm")?;
    // The embeddings serve both ways: a network with a copy of them would be 106 MB larger.
    let logits = b.product(&x, EMBEDDINGS, None, [WIDTH, VOCABULARY])?;
    b.graph.output(&logits);
    attention.iter().chain(&present).for_each(|value| b.graph.output(value));
    b.graph.onnx("whisper step")
}

impl Builder<'_> {
    fn weight(&mut self, name: &str, dims: &[usize]) -> Result<Node, Error> {
        Ok(self.graph.weight(self.weights.slot(name, dims)?))
    }

    /// A convolution over three frames, and its activation.
    fn convolution(&mut self, x: &Node, name: &str, from: usize, stride: i64) -> Result<Node, Error> {
        let weight = self.weight(&format!("{name}/weight"), &[WIDTH, from, 3])?;
        let bias = self.weight(&format!("{name}/bias"), &[WIDTH])?;
        let settings = [
            ("kernel_shape", Setting::Ints(&[3])),
            ("pads", Setting::Ints(&[1, 1])),
            ("strides", Setting::Ints(&[stride])),
        ];
        let x = self.graph.apply("Conv", &[x, &weight, &bias], &settings);
        Ok(self.graph.apply("Gelu", &[&x], &[]))
    }

    fn norm(&mut self, x: &Node, name: &str) -> Result<Node, Error> {
        let scale = self.weight(&format!("{name}/gamma"), &[WIDTH])?;
        let bias = self.weight(&format!("{name}/beta"), &[WIDTH])?;
        let settings = [("axis", Setting::Int(-1)), ("epsilon", Setting::Float(1e-5))];
        Ok(self.graph.apply("LayerNormalization", &[x, &scale, &bias], &settings))
    }

    fn linear(&mut self, x: &Node, name: &str, from: usize, to: usize) -> Result<Node, Error> {
        let bias = self.weight(&format!("{name}/bias"), &[to])?;
        self.product(x, &format!("{name}/weight"), Some(&bias), [from, to])
    }

    /// `[T, from]` times a matrix, in as many bits as that has.
    fn product(
        &mut self,
        x: &Node,
        name: &str,
        bias: Option<&Node>,
        [from, to]: [usize; 2],
    ) -> Result<Node, Error> {
        let Some(scales) = self.scales(name, to)? else {
            let weight = self.weight(name, &[to, from])?;
            let inputs: Vec<&Node> = [x, &weight].into_iter().chain(bias).collect();
            return Ok(self.graph.apply("Gemm", &inputs, &[("transB", Setting::Int(1))]));
        };
        let weight = self.weight(name, &[from, to])?;
        let rounded = self.graph.apply_many("DynamicQuantizeLinear", &[x], &[], 3);
        let middle = self.graph.bytes(&[], &[0]);
        let sums = self.graph.apply("MatMulInteger", &[&rounded[0], &weight, &rounded[2], &middle], &[]);
        let sums = self.graph.apply("Cast", &[&sums], &[("to", Setting::Int(FLOAT))]);
        let scales = self.graph.apply("Mul", &[&scales, &rounded[1]], &[]);
        let product = self.graph.apply("Mul", &[&sums, &scales], &[]);
        Ok(match bias {
            Some(bias) => self.graph.apply("Add", &[&product, bias], &[]),
            None => product,
        })
    }

    /// The scales of the columns of a matrix in 8 bits.
    fn scales(&mut self, name: &str, columns: usize) -> Result<Option<Node>, Error> {
        let name = quantize::scales(name);
        self.weights.has(&name).then(|| self.weight(&name, &[columns])).transpose()
    }

    /// The vector `[1, WIDTH]` of a token `[1]`.
    fn embedding(&mut self, token: &Node) -> Result<Node, Error> {
        let Some(scales) = self.scales(EMBEDDINGS, VOCABULARY)? else {
            let embeddings = self.weight(EMBEDDINGS, &[VOCABULARY, WIDTH])?;
            return Ok(self.graph.apply("Gather", &[&embeddings, token], &[]));
        };
        let embeddings = self.weight(EMBEDDINGS, &[WIDTH, VOCABULARY])?;
        let column = self.graph.apply("Gather", &[&embeddings, token], &[("axis", Setting::Int(1))]);
        let column = self.graph.apply("Cast", &[&column], &[("to", Setting::Int(FLOAT))]);
        let row = self.graph.reshape(&column, &[1, WIDTH as i64]);
        let scale = self.graph.apply("Gather", &[&scales, token], &[]);
        Ok(self.graph.apply("Mul", &[&row, &scale], &[]))
    }

    /// `[T, n * WIDTH]` in `n` parts of `WIDTH` columns.
    fn split(&mut self, x: &Node, parts: usize) -> Vec<Node> {
        let sizes = self.graph.ints(&vec![WIDTH as i64; parts]);
        self.graph.apply_many("Split", &[x, &sizes], &[("axis", Setting::Int(1))], parts)
    }

    /// `[STEPS, WIDTH]` by heads: `[HEADS, STEPS, SIZE]`, or for keys `[HEADS, SIZE, STEPS]`.
    fn heads(&mut self, x: &Node, keys: bool) -> Node {
        let x = self.graph.reshape(x, &[STEPS as i64, HEADS as i64, SIZE as i64]);
        self.graph.transpose(&x, if keys { &[1, 2, 0] } else { &[1, 0, 2] })
    }

    /// What the queries see `[T, WIDTH]`, and with which weights `[HEADS, T, keys]`.
    fn attend(&mut self, q: &Node, k: &Node, v: &Node) -> (Node, Node) {
        let scale = self.graph.number((SIZE as f32).sqrt().recip());
        let q = self.graph.apply("Mul", &[q, &scale], &[]);
        let scores = self.graph.apply("MatMul", &[&q, k], &[]);
        let weights = self.graph.apply("Softmax", &[&scores], &[("axis", Setting::Int(-1))]);
        let seen = self.graph.apply("MatMul", &[&weights, v], &[]);
        let seen = self.graph.transpose(&seen, &[1, 0, 2]);
        (self.graph.reshape(&seen, &[-1, WIDTH as i64]), weights)
    }

    fn add_projected(&mut self, x: &Node, seen: &Node, name: &str) -> Result<Node, Error> {
        let projected = self.linear(seen, name, WIDTH, WIDTH)?;
        Ok(self.graph.apply("Add", &[x, &projected], &[]))
    }

    fn feed_forward(&mut self, x: &Node, layer: &str) -> Result<Node, Error> {
        let normal = self.norm(x, &format!("{layer}/ffn/layer_norm"))?;
        let wide = self.linear(&normal, &format!("{layer}/ffn/linear_0"), WIDTH, 4 * WIDTH)?;
        let wide = self.graph.apply("Gelu", &[&wide], &[]);
        let narrow = self.linear(&wide, &format!("{layer}/ffn/linear_1"), 4 * WIDTH, WIDTH)?;
        Ok(self.graph.apply("Add", &[x, &narrow], &[]))
    }
}

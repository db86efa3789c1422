use std::path::PathBuf;

use super::*;
use crate::neural::graph::{Graph, Node, Setting};

/// Sizes of the small network.
const BANDS: usize = 128;
const WIDTH: usize = 24;
const HIDDEN: usize = 16;
const TOKENS: usize = 30;
const DURATIONS: usize = 5;
const OUT: usize = TOKENS + 1 + DURATIONS;
const STRIDE: usize = 8;

/// Random weights of a small Parakeet.
struct Weights {
    encoder: Vec<f32>,
    embedding: Vec<f32>,
    input: Vec<f32>,
    hidden: Vec<f32>,
    bias: Vec<f32>,
    joint_encoder: Vec<f32>,
    joint_decoder: Vec<f32>,
}

impl Weights {
    fn random(seed: u32) -> Self {
        let mut state = seed;
        let mut draw = |count: usize, scale: f32| -> Vec<f32> {
            (0..count)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * scale
                })
                .collect()
        };
        Self {
            encoder: draw(WIDTH * BANDS * STRIDE, 0.2),
            embedding: draw((TOKENS + 1) * HIDDEN, 4.0),
            input: draw(4 * HIDDEN * HIDDEN, 1.0),
            hidden: draw(4 * HIDDEN * HIDDEN, 1.0),
            bias: draw(8 * HIDDEN, 0.5),
            joint_encoder: draw(WIDTH * OUT, 2.0),
            joint_decoder: draw(HIDDEN * OUT, 4.0),
        }
    }

    /// Whether a product is of 8 bits decides its operators.
    fn product(graph: &mut Graph, x: &Node, weights: &[f32], dims: [usize; 2], int8: bool) -> Node {
        if !int8 {
            let weights = graph.floats(&dims, weights);
            return graph.apply("MatMul", &[x, &weights], &[]);
        }
        let (scale, bytes) = quantized(weights);
        let weights = graph.bytes(&dims, &bytes);
        let quantized = graph.apply_many("DynamicQuantizeLinear", &[x], &[], 3);
        let product = graph.apply("MatMulInteger", &[&quantized[0], &weights, &quantized[2]], &[]);
        let product = graph.apply("Cast", &[&product], &[("to", Setting::Int(1))]);
        let scale = graph.number(scale);
        let scale = graph.apply("Mul", &[&quantized[1], &scale], &[]);
        graph.apply("Mul", &[&product, &scale], &[])
    }

    fn encoder(&self, int8: bool) -> Vec<u8> {
        let mut graph = Graph::default();
        let spectrum = graph.input("audio_signal", false, &[1, BANDS, 0]);
        let length = graph.input("length", true, &[1]);
        // Eight frames after another in one row, as a convolution with such a stride.
        let by_time = graph.transpose(&spectrum, &[0, 2, 1]);
        let (zero, axis) = (graph.ints(&[0]), graph.ints(&[1]));
        let shape =
            graph.apply("Shape", &[&by_time], &[("start", Setting::Int(1)), ("end", Setting::Int(2))]);
        let eight = graph.ints(&[STRIDE as i64]);
        let rows = graph.apply("Div", &[&shape, &eight], &[]);
        let frames = graph.apply("Mul", &[&rows, &eight], &[]);
        let cut = graph.apply("Slice", &[&by_time, &zero, &frames, &axis], &[]);
        let rows = graph.reshape(&cut, &[1, -1, (STRIDE * BANDS) as i64]);
        let encoded = Self::product(&mut graph, &rows, &self.encoder, [STRIDE * BANDS, WIDTH], int8);
        let encoded = graph.apply("Tanh", &[&encoded], &[]);
        let encoded = graph.transpose(&encoded, &[0, 2, 1]);
        let length = graph.apply("Identity", &[&length], &[]);
        graph.output(&encoded);
        graph.output(&length);
        graph.onnx("encoder").unwrap()
    }

    /// The predictor inside of a graph: its result `[1, 1, HIDDEN]` and both states.
    fn predict(&self, graph: &mut Graph) -> (Node, Node, Node, Node) {
        let token = graph.input("targets", true, &[1, 1]);
        let count = graph.input("target_length", true, &[1]);
        let h = graph.input("states.1", false, &[1, 0, HIDDEN]);
        let c = graph.input("onnx::Slice_3", false, &[1, 0, HIDDEN]);
        let table = graph.floats(&[TOKENS + 1, HIDDEN], &self.embedding);
        let embedded = graph.apply("Gather", &[&table, &token], &[]);
        let (w, r) = (
            graph.floats(&[1, 4 * HIDDEN, HIDDEN], &self.input),
            graph.floats(&[1, 4 * HIDDEN, HIDDEN], &self.hidden),
        );
        let b = graph.floats(&[1, 8 * HIDDEN], &self.bias);
        let settings = [("hidden_size", Setting::Int(HIDDEN as i64))];
        let made = graph.apply_many("LSTM", &[&embedded, &w, &r, &b, &count, &h, &c], &settings, 3);
        let out = graph.reshape(&made[0], &[1, 1, HIDDEN as i64]);
        let length = graph.apply("Identity", &[&count], &[]);
        (out, length, made[1].clone(), made[2].clone())
    }

    /// `[1, WIDTH, 1]` and `[1, 1, HIDDEN]` to `[1, 1, 1, OUT]`.
    fn join(&self, graph: &mut Graph, frame: &Node, predicted: &Node, int8: bool) -> Node {
        let frame = graph.transpose(frame, &[0, 2, 1]);
        let one = Self::product(graph, &frame, &self.joint_encoder, [WIDTH, OUT], int8);
        let two = Self::product(graph, predicted, &self.joint_decoder, [HIDDEN, OUT], int8);
        let sum = graph.apply("Add", &[&one, &two], &[]);
        graph.reshape(&sum, &[1, 1, 1, OUT as i64])
    }

    fn whole(&self, int8: bool) -> Vec<u8> {
        let mut graph = Graph::default();
        let frame = graph.input("encoder_outputs", false, &[1, WIDTH, 0]);
        let (predicted, length, h, c) = self.predict(&mut graph);
        let joined = self.join(&mut graph, &frame, &predicted, int8);
        [joined, length, h, c].iter().for_each(|output| graph.output(output));
        graph.onnx("decoder_joint").unwrap()
    }

    fn split(&self, int8: bool) -> (Vec<u8>, Vec<u8>) {
        let mut graph = Graph::default();
        let (predicted, length, h, c) = self.predict(&mut graph);
        let predicted = graph.transpose(&predicted, &[0, 2, 1]);
        [predicted, length, h, c].iter().for_each(|output| graph.output(output));
        let decoder = graph.onnx("decoder").unwrap();
        let mut graph = Graph::default();
        let frame = graph.input("encoder_outputs", false, &[1, WIDTH, 0]);
        let predicted = graph.input("decoder_outputs", false, &[1, HIDDEN, 0]);
        let predicted = graph.transpose(&predicted, &[0, 2, 1]);
        let joined = self.join(&mut graph, &frame, &predicted, int8);
        graph.output(&joined);
        (decoder, graph.onnx("joiner").unwrap())
    }

    /// A folder with these networks, removed by the caller.
    fn folder(&self, name: &str, split: bool, int8: bool) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("speechstack-parakeet-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let ending = if int8 { ".int8.onnx" } else { ".onnx" };
        let write = |name: String, content: &[u8]| std::fs::write(folder.join(name), content).unwrap();
        let mut vocabulary: String = (0..TOKENS)
            .map(|id| format!("{}t{id} {id}\n", if id % 3 == 0 { "\u{2581}" } else { "" }))
            .collect();
        vocabulary.push_str(&format!("<blk> {TOKENS}\n"));
        if split {
            let (decoder, joiner) = self.split(int8);
            write(format!("encoder{ending}"), &self.encoder(int8));
            write(format!("decoder{ending}"), &decoder);
            write(format!("joiner{ending}"), &joiner);
            write("tokens.txt".into(), vocabulary.as_bytes());
        } else {
            write(format!("encoder-model{ending}"), &self.encoder(int8));
            write(format!("decoder_joint-model{ending}"), &self.whole(int8));
            write("vocab.txt".into(), vocabulary.as_bytes());
        }
        folder
    }

    /// The tokens and frames by plain arithmetic, without a network.
    fn reference(&self, samples: &[i16], int8: bool) -> Vec<(usize, usize)> {
        let (frames, spectrum) = features::spectrum(samples, BANDS);
        let steps = frames / STRIDE;
        let rows: Vec<f32> = (0..steps)
            .flat_map(|step| (0..STRIDE * BANDS).map(move |k| (step, k)))
            .map(|(step, k)| spectrum[(k % BANDS) * frames + step * STRIDE + k / BANDS])
            .collect();
        let encoded: Vec<f32> =
            multiplied(&rows, &self.encoder, WIDTH, int8).into_iter().map(f32::tanh).collect();
        let (mut h, mut c) = (vec![0.0; HIDDEN], vec![0.0; HIDDEN]);
        let (mut last, mut time, mut here, mut found) = (TOKENS, 0, 0, Vec::new());
        while time < steps {
            let (new_h, new_c) = self.cell(&self.embedding[last * HIDDEN..(last + 1) * HIDDEN], &h, &c);
            let frame = &encoded[time * WIDTH..(time + 1) * WIDTH];
            let one = multiplied(frame, &self.joint_encoder, OUT, int8);
            let two = multiplied(&new_h, &self.joint_decoder, OUT, int8);
            let logits: Vec<f32> = one.iter().zip(&two).map(|(one, two)| one + two).collect();
            let best =
                |values: &[f32]| (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap();
            let (token, skip) = (best(&logits[..=TOKENS]), best(&logits[TOKENS + 1..]));
            if token != TOKENS {
                found.push((token, time));
                (h, c, last) = (new_h, new_c, token);
                here += 1;
            }
            if skip > 0 {
                time += skip;
                here = 0;
            } else if token == TOKENS || here == MAX_PER_FRAME {
                time += 1;
                here = 0;
            }
        }
        found
    }

    /// One step of the recurrent layer, gates in ONNX's order: input, output, forget, cell.
    fn cell(&self, x: &[f32], h: &[f32], c: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let gate = |gate: usize, unit: usize| {
            let row = (gate * HIDDEN + unit) * HIDDEN;
            let from_x: f32 = (0..HIDDEN).map(|k| x[k] * self.input[row + k]).sum();
            let from_h: f32 = (0..HIDDEN).map(|k| h[k] * self.hidden[row + k]).sum();
            from_x + from_h + self.bias[gate * HIDDEN + unit] + self.bias[(4 + gate) * HIDDEN + unit]
        };
        let sigmoid = |value: f32| 1.0 / (1.0 + (-value).exp());
        let cells: Vec<f32> = (0..HIDDEN)
            .map(|k| sigmoid(gate(2, k)) * c[k] + sigmoid(gate(0, k)) * gate(3, k).tanh())
            .collect();
        let hidden = (0..HIDDEN).map(|k| sigmoid(gate(1, k)) * cells[k].tanh()).collect();
        (hidden, cells)
    }
}

/// Weights as bytes, and what one of them is worth. Of 7 bits, so that no processor saturates when it adds pairs.
fn quantized(weights: &[f32]) -> (f32, Vec<i8>) {
    let scale = weights.iter().fold(0.0_f32, |most, weight| most.max(weight.abs())) / 63.0;
    (scale, weights.iter().map(|weight| (weight / scale).round() as i8).collect())
}

/// Rows times a matrix of so many columns; with 8 bits as ONNX defines DynamicQuantizeLinear and MatMulInteger.
fn multiplied(rows: &[f32], weights: &[f32], columns: usize, int8: bool) -> Vec<f32> {
    let width = weights.len() / columns;
    let of = |row: usize, out: usize| (0..width).map(move |k| (row * width + k, k * columns + out));
    let all = (0..rows.len() / width).flat_map(|row| (0..columns).map(move |out| (row, out)));
    if !int8 {
        return all.map(|(row, out)| of(row, out).map(|(x, w)| rows[x] * weights[w]).sum()).collect();
    }
    let (worth, bytes) = quantized(weights);
    let (least, most) =
        rows.iter().fold((0.0_f32, 0.0_f32), |(least, most), x| (least.min(*x), most.max(*x)));
    let scale = (most - least) / 255.0;
    let zero = (-least / scale).clamp(0.0, 255.0).round_ties_even();
    let shifted: Vec<i32> = rows
        .iter()
        .map(|x| (((x / scale).round_ties_even() + zero).clamp(0.0, 255.0) - zero) as i32)
        .collect();
    let sum = |(row, out)| of(row, out).map(|(x, w)| shifted[x] * i32::from(bytes[w])).sum::<i32>();
    all.map(|place| sum(place) as f32 * (scale * worth)).collect()
}

/// Four seconds of changing tones.
fn sound() -> Vec<i16> {
    let tone = |i: u32| {
        let hz = 200.0 + 150.0 * f64::from(i / 3_200 % 13);
        ((f64::from(i) * hz * std::f64::consts::TAU / 16_000.0).sin() * 8_000.0) as i16
            + (i.wrapping_mul(2_654_435_761) >> 22) as i16
    };
    (0..64_000).map(tone).collect()
}

#[test]
fn both_layouts_give_the_tokens_of_plain_arithmetic() {
    for seed in [1, 7, 42] {
        let weights = Weights::random(seed);
        let expected = weights.reference(&sound(), false);
        assert!(expected.len() > 10, "a network that says next to nothing proves nothing: {expected:?}");
        for split in [false, true] {
            let folder = weights.folder(&format!("{seed}-{split}"), split, false);
            let layout = layout::find(&folder).unwrap();
            assert!(!layout.quantized);
            let parakeet = Parakeet::load(&layout, &Threads::new(1)).unwrap();
            let named = cfg!(feature = "ort") && std::env::var_os("ORT_DYLIB_PATH").is_some();
            assert_eq!(parakeet.runtime(), if named { "ONNX Runtime" } else { "rten" });
            let emitted = parakeet.emit(&sound()).unwrap();
            let found: Vec<(usize, usize)> = emitted.iter().map(|one| (one.token, one.frame)).collect();
            assert_eq!(found, expected, "seed {seed}, split {split}");
            assert!(emitted.iter().all(|one| one.probability > 0.0 && one.probability <= 1.0));
            let words = parakeet.words(&sound()).unwrap();
            assert!(words.iter().all(|word| word.start_s < word.end_s && !word.text.contains(SPACE)));
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}

#[test]
fn eight_bits_give_the_tokens_of_plain_arithmetic_in_both_layouts() {
    for seed in [1, 7, 42] {
        let weights = Weights::random(seed);
        let expected = weights.reference(&sound(), true);
        assert!(expected.len() > 5, "a network that says next to nothing proves nothing: {expected:?}");
        for split in [false, true] {
            let folder = weights.folder(&format!("int8-{seed}-{split}"), split, true);
            let layout = layout::find(&folder).unwrap();
            assert!(layout.quantized);
            let emitted = Parakeet::load(&layout, &Threads::new(1)).unwrap().emit(&sound()).unwrap();
            std::fs::remove_dir_all(folder).unwrap();
            let found: Vec<(usize, usize)> = emitted.iter().map(|one| (one.token, one.frame)).collect();
            assert_eq!(found, expected, "seed {seed}, split {split}");
        }
    }
}

#[test]
fn a_folder_that_is_no_parakeet_is_refused() {
    let folder = std::env::temp_dir().join(format!("speechstack-parakeet-{}-none", std::process::id()));
    assert_eq!(layout::find(&folder), None);
    let weights = Weights::random(1);
    let folder = weights.folder("broken", false, false);
    std::fs::write(folder.join("decoder_joint-model.onnx"), b"no network").unwrap();
    let layout = layout::find(&folder).unwrap();
    assert!(matches!(Parakeet::load(&layout, &Threads::new(1)), Err(Error::Load { .. })));
    std::fs::remove_dir_all(folder).unwrap();
}

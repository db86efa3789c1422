//! Text to speech by Kokoro in 8 bits: voices of several languages at 24 kHz, at about real time on a slow core.

use std::collections::BTreeMap;
use std::path::Path;

use rten::ValueOrView;
use rten_onnx::onnx::{AttributeProto, AttributeType, ModelProto, NodeProto};
use rten_tensor::NdTensor;

use super::net::{Net, Threads};
use super::{Error, files};

/// Phonemes that the network takes at once: a voice has a style for each count below 510.
pub const LONGEST: usize = 480;
const FILE: &str = "kokoro/kokoro-v1.0.int8.onnx";
/// Numbers of a style.
const STYLE: usize = 256;

/// The network and its voices, loaded.
pub struct Kokoro {
    net: Net,
    /// For each voice its styles, one after the other.
    voices: BTreeMap<String, Vec<f32>>,
}

impl Kokoro {
    /// Loads the published files of a folder.
    ///
    /// # Errors
    /// When a file cannot be read, is not the published one, or malformed.
    pub fn load(models: &Path, threads: &Threads) -> Result<Self, Error> {
        let net = Net::load("kokoro", plain(&files::read(models, FILE)?)?, None, threads)?;
        let mut voices = BTreeMap::new();
        for file in files::names().filter(|name| name.starts_with("kokoro/voices/")) {
            let bytes = files::read(models, file)?;
            let numbers =
                bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            let name = file.trim_start_matches("kokoro/voices/").trim_end_matches(".bin");
            voices.insert(name.to_owned(), numbers.collect());
        }
        Ok(Self { net, voices })
    }

    /// The samples of at most [`LONGEST`] phonemes, -1 to 1, in one of the published voices. `stretch` multiplies durations.
    ///
    /// # Errors
    /// When there is no such voice, or the network fails.
    pub fn say(&self, numbers: Vec<i32>, voice: &str, stretch: f32) -> Result<Vec<f32>, Error> {
        let row = numbers.len().saturating_sub(2) * STYLE;
        let style = self.voices.get(voice).and_then(|styles| styles.get(row..row + STYLE));
        let style = style.ok_or(Error::Format { file: FILE, reason: "no such voice" })?;
        let style = NdTensor::from_data([1, STYLE], style.to_vec());
        let speed = NdTensor::from_data([1], vec![stretch.clamp(0.25, 4.0).recip()]);
        let numbers = NdTensor::from_data([1, numbers.len()], numbers);
        let inputs = vec![ValueOrView::from(numbers), ValueOrView::from(style), ValueOrView::from(speed)];
        Ok(self.net.floats(self.net.run(inputs)?.into_iter().next())?.1)
    }
}

/// The file without the one operator that the runtime lacks: a product whose first factor is transposed becomes two steps.
fn plain(onnx: &[u8]) -> Result<Vec<u8>, Error> {
    let malformed = |reason| Error::Format { file: FILE, reason };
    let mut model = ModelProto::parse_buf(onnx).map_err(|_| malformed("not an ONNX file"))?;
    let graph = model.graph.as_mut().ok_or_else(|| malformed("without a graph"))?;
    let fused = |node: &NodeProto| node.op_type.as_deref() == Some("FusedMatMul");
    while let Some(place) = graph.node.iter().position(fused) {
        let node = &mut graph.node[place];
        let [first, ..] = node.input.as_mut_slice() else { return Err(malformed("a product of nothing")) };
        let turned = format!("{first}_turned");
        let transpose = NodeProto {
            op_type: Some("Transpose".to_owned()),
            name: Some(turned.clone()),
            input: vec![std::mem::replace(first, turned.clone())],
            output: vec![turned],
            attribute: vec![AttributeProto {
                name: Some("perm".to_owned()),
                ints: vec![0, 2, 1],
                r#type: Some(AttributeType::INTS),
                ..AttributeProto::default()
            }],
            domain: None,
        };
        (node.op_type, node.domain) = (Some("MatMul".to_owned()), None);
        node.attribute.clear();
        graph.node.insert(place, transpose);
    }
    model.write_buf().map_err(|_| Error::Build("kokoro"))
}

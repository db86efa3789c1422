//! Builds a network out of operators and weights, as an ONNX file in memory.

use std::cell::RefCell;

use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataLocation, DataType, Dimension, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor,
    ValueInfoProto,
};

use super::Error;
use super::weights::Slot;

/// Under this name the weights outside of the file are known.
pub const WEIGHTS: &str = "weights.data";
/// The version of the operators.
const OPERATORS: i64 = 20;

/// A value inside of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node(String);

/// A setting of an operator.
pub enum Setting<'a> {
    /// One whole number.
    Int(i64),
    /// Whole numbers.
    Ints(&'a [i64]),
    /// One number.
    Float(f32),
    /// A word.
    Text(&'a str),
}

/// A graph that is being built.
#[derive(Default)]
pub struct Graph {
    proto: GraphProto,
    count: usize,
}

impl Graph {
    /// An input of floats (or of whole numbers); a dimension of 0 is open.
    pub fn input(&mut self, name: &str, whole: bool, dims: &[usize]) -> Node {
        let kind = if whole { DataType::INT32 } else { DataType::FLOAT };
        self.proto.input.push(described(name, Some((kind, dims))));
        Node(name.to_owned())
    }

    /// Names a value as the next output.
    pub fn output(&mut self, value: &Node) {
        self.proto.output.push(described(&value.0, None));
    }

    /// A constant of floats that is kept in the file.
    pub fn floats(&mut self, dims: &[usize], values: &[f32]) -> Node {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(dims, DataType::FLOAT, raw)
    }

    /// A constant of bytes with a sign.
    pub fn bytes(&mut self, dims: &[usize], values: &[i8]) -> Node {
        self.constant(dims, DataType::INT8, values.iter().map(|value| value.cast_unsigned()).collect())
    }

    /// A constant list of whole numbers.
    pub fn ints(&mut self, values: &[i64]) -> Node {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(&[values.len()], DataType::INT64, raw)
    }

    /// A constant number.
    pub fn number(&mut self, value: f32) -> Node {
        self.constant(&[], DataType::FLOAT, value.to_le_bytes().to_vec())
    }

    /// A tensor of the weights outside of the file.
    pub fn weight(&mut self, slot: &Slot) -> Node {
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        let external = vec![
            entry("location", WEIGHTS.to_owned()),
            entry("offset", slot.offset.to_string()),
            entry("length", slot.bytes().unwrap_or(0).to_string()),
        ];
        let name = self.name();
        let kind = if slot.is_bytes { DataType::INT8 } else { DataType::FLOAT };
        let mut tensor = tensor(&name, &slot.dims, kind);
        tensor.data_location = Some(DataLocation::EXTERNAL);
        tensor.external_data = external;
        self.proto.initializer.push(tensor);
        Node(name)
    }

    /// Applies an operator with one output.
    pub fn apply(&mut self, operator: &str, inputs: &[&Node], settings: &[(&str, Setting<'_>)]) -> Node {
        let name = self.name();
        self.push(operator, inputs, settings, vec![name.clone()]);
        Node(name)
    }

    /// Applies an operator with `outputs` outputs.
    pub fn apply_many(
        &mut self,
        operator: &str,
        inputs: &[&Node],
        settings: &[(&str, Setting<'_>)],
        outputs: usize,
    ) -> Vec<Node> {
        let names: Vec<String> = (0..outputs).map(|_| self.name()).collect();
        self.push(operator, inputs, settings, names.clone());
        names.into_iter().map(Node).collect()
    }

    /// `x` with its dimensions in another order.
    pub fn transpose(&mut self, x: &Node, order: &[i64]) -> Node {
        self.apply("Transpose", &[x], &[("perm", Setting::Ints(order))])
    }

    /// `x` with these dimensions; -1 is what is left, 0 what it was.
    pub fn reshape(&mut self, x: &Node, dims: &[i64]) -> Node {
        let dims = self.ints(dims);
        self.apply("Reshape", &[x, &dims], &[])
    }

    /// The graph as an ONNX file.
    ///
    /// # Errors
    /// [`Error::Build`] when it cannot be written down.
    pub fn onnx(self, net: &'static str) -> Result<Vec<u8>, Error> {
        let opset = OperatorSetIdProto { domain: None, version: Some(OPERATORS) };
        let model = ModelProto {
            ir_version: Some(9),
            graph: Some(self.proto),
            opset_import: vec![opset],
            ..ModelProto::default()
        };
        model.write_buf().map_err(|_| Error::Build(net))
    }

    fn push(
        &mut self,
        operator: &str,
        inputs: &[&Node],
        settings: &[(&str, Setting<'_>)],
        outputs: Vec<String>,
    ) {
        self.proto.node.push(NodeProto {
            op_type: Some(operator.to_owned()),
            name: outputs.first().cloned(),
            input: inputs.iter().map(|input| input.0.clone()).collect(),
            output: outputs,
            attribute: settings.iter().map(|(name, setting)| attribute(name, setting)).collect(),
            domain: None,
        });
    }

    fn constant(&mut self, dims: &[usize], kind: DataType, raw: Vec<u8>) -> Node {
        let name = self.name();
        let mut tensor = tensor(&name, dims, kind);
        tensor.raw_data = Some(RefCell::new(raw));
        self.proto.initializer.push(tensor);
        Node(name)
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("v{}", self.count)
    }
}

fn tensor(name: &str, dims: &[usize], kind: DataType) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.iter().map(|size| *size as i64).collect(),
        data_type: Some(kind),
        ..TensorProto::default()
    }
}

fn attribute(name: &str, setting: &Setting<'_>) -> AttributeProto {
    let mut attribute = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let kind = match setting {
        Setting::Int(value) => {
            attribute.i = Some(*value);
            AttributeType::INT
        }
        Setting::Ints(values) => {
            attribute.ints = values.to_vec();
            AttributeType::INTS
        }
        Setting::Float(value) => {
            attribute.f = Some(*value);
            AttributeType::FLOAT
        }
        Setting::Text(text) => {
            attribute.s = Some((*text).to_owned());
            AttributeType::STRING
        }
    };
    attribute.r#type = Some(kind);
    attribute
}

fn described(name: &str, kind: Option<(DataType, &[usize])>) -> ValueInfoProto {
    let open = |(index, size): (usize, &usize)| Dimension {
        dim_value: (*size > 0).then_some(*size as i64),
        dim_param: (*size == 0).then(|| format!("{name}_{index}")),
    };
    let tensor_type = kind.map(|(kind, dims)| TypeProtoTensor {
        elem_type: Some(kind),
        shape: Some(TensorShapeProto { dim: dims.iter().enumerate().map(open).collect() }),
    });
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: tensor_type.map(|tensor_type| TypeProto { tensor_type: Some(tensor_type), sequence: None }),
    }
}

//! A network that is loaded, and its runs.

use std::sync::Arc;

use rten::{Dimension, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};

use super::Error;

/// The threads on which networks run. All networks of a process share one pool, so that its number is a bound.
#[derive(Clone)]
pub struct Threads {
    pool: Arc<ThreadPool>,
    #[cfg(feature = "ort")]
    count: usize,
}

impl Threads {
    /// A pool of `count` threads, at least one.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let count = count.max(1);
        Self {
            pool: Arc::new(ThreadPool::with_num_threads(count)),
            #[cfg(feature = "ort")]
            count,
        }
    }
}

/// A loaded network. Inputs and outputs go by their positions.
pub struct Net {
    name: &'static str,
    runtime: Runtime,
}

/// What runs a network.
enum Runtime {
    Rten {
        model: Model,
        inputs: Vec<NodeId>,
        outputs: Vec<NodeId>,
        threads: Threads,
    },
    #[cfg(feature = "ort")]
    Onnx(super::onnxruntime::Network),
}

impl Net {
    /// Loads an ONNX file from memory; tensors that are not in it lie in `weights`.
    ///
    /// # Errors
    /// [`Error::Load`] when the runtime refuses it.
    pub fn load(
        name: &'static str,
        onnx: Vec<u8>,
        weights: Option<(&str, &'static [u8])>,
        threads: &Threads,
    ) -> Result<Self, Error> {
        let mut options = ModelOptions::with_all_ops();
        if let Some((path, bytes)) = weights {
            options.external_data_static(path, bytes);
        }
        Self::with(name, options.load(onnx), threads)
    }

    /// Loads an ONNX file, with the files of tensors beside it.
    ///
    /// # Errors
    /// [`Error::Load`] when the runtime refuses it.
    pub fn open(name: &'static str, path: &std::path::Path, threads: &Threads) -> Result<Self, Error> {
        #[cfg(feature = "ort")]
        if let Some(network) = super::onnxruntime::Network::open(name, path, threads.count) {
            return Ok(Self { name, runtime: Runtime::Onnx(network?) });
        }
        Self::with(name, ModelOptions::with_all_ops().load_file(path), threads)
    }

    fn with(
        name: &'static str,
        model: Result<Model, rten::LoadError>,
        threads: &Threads,
    ) -> Result<Self, Error> {
        let model = model.map_err(|source| Error::Load { net: name, source: source.into() })?;
        let (inputs, outputs) = (model.input_ids().to_vec(), model.output_ids().to_vec());
        Ok(Self { name, runtime: Runtime::Rten { model, inputs, outputs, threads: threads.clone() } })
    }

    /// What runs it.
    pub fn runtime(&self) -> &'static str {
        match &self.runtime {
            Runtime::Rten { .. } => "rten",
            #[cfg(feature = "ort")]
            Runtime::Onnx(_) => "ONNX Runtime",
        }
    }

    /// The dimensions of an input by its position, `None` for those that are open; empty when they are not known.
    pub fn input_dims(&self, input: usize) -> Vec<Option<usize>> {
        let size = |dimension: &Dimension| match dimension {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Symbolic(_) => None,
        };
        match &self.runtime {
            Runtime::Rten { model, .. } => {
                model.input_shape(input).map_or_else(Vec::new, |dims| dims.iter().map(size).collect())
            }
            #[cfg(feature = "ort")]
            Runtime::Onnx(network) => network.input_dims(input),
        }
    }

    /// Runs the network on its first inputs and gives all outputs, in order.
    ///
    /// # Errors
    /// [`Error::Run`] when the runtime refuses, [`Error::Shape`] when there are more values than inputs.
    pub fn run(&self, values: Vec<ValueOrView<'_>>) -> Result<Vec<Value>, Error> {
        match &self.runtime {
            Runtime::Rten { model, inputs, outputs, threads } => {
                if values.len() > inputs.len() {
                    return Err(Error::Shape(self.name));
                }
                let inputs = inputs.iter().copied().zip(values).collect();
                let options = RunOptions::default().with_thread_pool(Some(threads.pool.clone()));
                let ran = model.run(inputs, outputs, Some(options));
                ran.map_err(|source| Error::Run { net: self.name, source: source.into() })
            }
            #[cfg(feature = "ort")]
            Runtime::Onnx(network) => network.run(values),
        }
    }

    /// The next value of a run's outputs as floats, with its shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is none or it holds other numbers.
    pub fn floats(&self, value: Option<Value>) -> Result<(Vec<usize>, Vec<f32>), Error> {
        use rten_tensor::Layout;
        match value {
            Some(Value::FloatTensor(tensor)) => Ok((tensor.shape().to_vec(), tensor.into_data())),
            _ => Err(Error::Shape(self.name)),
        }
    }

    /// What to say when a value of this network is not of the expected shape.
    pub fn unexpected(&self) -> Error {
        Error::Shape(self.name)
    }
}

//! Runs networks in ONNX Runtime, out of a shared library that the environment variable `ORT_DYLIB_PATH` names.

use std::path::Path;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, ValueType};
use parking_lot::Mutex;
use rten::{Value, ValueOrView, ValueView};
use rten_tensor::{AsView, Layout};

use super::Error;

/// The runtime's library, in the variable that other programs use for it as well.
const LIBRARY: &str = "ORT_DYLIB_PATH";

/// A network in ONNX Runtime.
pub struct Network {
    name: &'static str,
    session: Mutex<Session>,
}

/// The runtime of this process, which lives as long; `None` when no library is named.
///
/// # Errors
/// [`Error::Load`] when the library cannot be used.
fn environment() -> Option<Result<&'static Environment, Error>> {
    static ENVIRONMENT: OnceLock<Option<Result<Environment, String>>> = OnceLock::new();
    let start = || {
        let library = std::env::var_os(LIBRARY).filter(|path| !path.is_empty())?;
        let path = Path::new(&library);
        tracing::info!(library = %path.display(), "networks out of files run in ONNX Runtime");
        let started = ort::init_from(path).map_err(|error| error.to_string());
        Some(started.and_then(|builder| builder.build().map_err(|error| error.to_string())))
    };
    let started = ENVIRONMENT.get_or_init(start).as_ref()?;
    Some(
        started.as_ref().map_err(|reason| Error::Load { net: "ONNX Runtime", source: reason.clone().into() }),
    )
}

impl Network {
    /// Loads an ONNX file; `None` when no library is named.
    ///
    /// # Errors
    /// [`Error::Load`] when the library cannot be used, or refuses the file.
    pub fn open(name: &'static str, path: &Path, threads: usize) -> Option<Result<Self, Error>> {
        let environment = match environment()? {
            Ok(environment) => environment,
            Err(error) => return Some(Err(error)),
        };
        let load = || -> ort::Result<Session> {
            let builder = Session::builder(environment)?;
            Ok(builder.with_intra_threads(threads)?.commit_from_file(path)?)
        };
        let loaded = load().map_err(|error| Error::Load { net: name, source: error.to_string().into() });
        Some(loaded.map(|session| Self { name, session: Mutex::new(session) }))
    }

    /// The dimensions of an input by its position, `None` for those that are open; empty when there is none.
    pub fn input_dims(&self, input: usize) -> Vec<Option<usize>> {
        let session = self.session.lock();
        match session.inputs().get(input).map(|input| input.dtype()) {
            Some(ValueType::Tensor { shape, .. }) => {
                shape.iter().map(|size| usize::try_from(*size).ok()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Runs the network on its first inputs and gives all outputs, in order.
    ///
    /// # Errors
    /// [`Error::Run`] when the runtime refuses, [`Error::Shape`] when there are more values than inputs.
    pub fn run(&self, values: Vec<ValueOrView<'_>>) -> Result<Vec<Value>, Error> {
        let refuse = |error: ort::Error| Error::Run { net: self.name, source: error.to_string().into() };
        let mut session = self.session.lock();
        let mut inputs: Vec<(String, SessionInputValue<'_>)> = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let input = session.inputs().get(index).ok_or(Error::Shape(self.name))?;
            let value = tensor(&value.as_view(), input.dtype()).ok_or(Error::Shape(self.name))?;
            inputs.push((input.name().to_owned(), value.map_err(refuse)?.into()));
        }
        let outputs = session.run(inputs).map_err(refuse)?;
        let values = outputs.values().map(|value| taken(&value).ok_or(Error::Shape(self.name)));
        values.collect()
    }
}

/// A value as the network wants it: ONNX has more kinds of whole numbers than `rten`.
fn tensor(value: &ValueView<'_>, wanted: &ValueType) -> Option<ort::Result<DynValue>> {
    let dims = value.shape().to_vec();
    let ValueType::Tensor { ty, .. } = wanted else { return None };
    match (value, ty) {
        (ValueView::FloatTensor(numbers), TensorElementType::Float32) => {
            Some(Tensor::from_array((dims, numbers.to_vec())).map(Tensor::into_dyn))
        }
        (ValueView::Int32Tensor(numbers), TensorElementType::Int32) => {
            Some(Tensor::from_array((dims, numbers.to_vec())).map(Tensor::into_dyn))
        }
        (ValueView::Int32Tensor(numbers), TensorElementType::Int64) => {
            let wide: Vec<i64> = numbers.iter().map(|number| i64::from(*number)).collect();
            Some(Tensor::from_array((dims, wide)).map(Tensor::into_dyn))
        }
        _ => None,
    }
}

/// A value of the network, as `rten` has it; `None` for numbers that it does not have.
fn taken(value: &DynValue) -> Option<Value> {
    let dims = |shape: &ort::value::Shape| -> Option<Vec<usize>> {
        shape.iter().map(|size| usize::try_from(*size).ok()).collect()
    };
    if let Ok((shape, numbers)) = value.try_extract_tensor::<f32>() {
        return Some(rten_tensor::Tensor::from_data(&dims(shape)?, numbers.to_vec()).into());
    }
    if let Ok((shape, numbers)) = value.try_extract_tensor::<i32>() {
        return Some(rten_tensor::Tensor::from_data(&dims(shape)?, numbers.to_vec()).into());
    }
    let (shape, numbers) = value.try_extract_tensor::<i64>().ok()?;
    let narrow: Option<Vec<i32>> = numbers.iter().map(|number| i32::try_from(*number).ok()).collect();
    Some(rten_tensor::Tensor::from_data(&dims(shape)?, narrow?).into())
}

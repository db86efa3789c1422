//! A GPU by NVIDIA's management library, which is loaded when it is there.

use std::ffi::OsStr;
use std::sync::OnceLock;
use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, EventSet, Nvml};

use crate::guard::heal::gpu::{Error, Gpu, RecoveryAction, Usage};

/// The name in images that have no development files.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`, of drivers from release 570 on.
const RECOVERY_ACTION: FieldId = FieldId(230);
/// What NVML reports for an Xid that it cannot name.
const UNKNOWN_XID: u64 = 999;

/// Loaded once and kept: devices and event sets borrow it.
static NVML: OnceLock<Nvml> = OnceLock::new();

/// One GPU.
pub struct NvmlGpu {
    device: Device<'static>,
    events: EventSet<'static>,
    uuid: String,
}

/// Opens the GPU that `visible` (`CUDA_VISIBLE_DEVICES`) names by number or UUID, or the only one.
///
/// # Errors
/// [`Error::Library`] without NVML, driver or such a GPU, [`Error::Ambiguous`] when several GPUs may be meant.
pub fn open(visible: Option<&str>) -> Result<NvmlGpu, Error> {
    let library = |source| Error::Library { source };
    let nvml = match NVML.get() {
        Some(nvml) => nvml,
        None => {
            let loaded = Nvml::builder().lib_path(OsStr::new(LIBRARY)).init().map_err(library)?;
            NVML.get_or_init(|| loaded)
        }
    };
    let count = nvml.device_count().map_err(library)?;
    let device = match visible.map(str::trim) {
        Some(name) if name.contains(',') => return Err(Error::Ambiguous { count }),
        Some(name) if name.starts_with("GPU-") => nvml.device_by_uuid(name),
        Some(name) if !name.is_empty() => match name.parse() {
            Ok(index) => nvml.device_by_index(index),
            Err(_) => return Err(Error::Ambiguous { count }),
        },
        _ if count == 1 => nvml.device_by_index(0),
        _ => return Err(Error::Ambiguous { count }),
    };
    let device = device.map_err(library)?;
    let uuid = device.uuid().map_err(library)?;
    let events = nvml.create_event_set().map_err(library)?;
    let events = device.register_events(EventTypes::CRITICAL_XID_ERROR, events);
    let events = events.map_err(|error| library(error.error))?;
    Ok(NvmlGpu { device, events, uuid })
}

impl Gpu for NvmlGpu {
    fn uuid(&self) -> &str {
        &self.uuid
    }

    fn xid(&mut self, timeout: Duration) -> Result<Option<u64>, Error> {
        match self.events.wait(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)) {
            Ok(event) => Ok(event.event_data.map(|xid| match xid {
                XidError::Value(xid) => xid,
                XidError::Unknown => UNKNOWN_XID,
            })),
            Err(NvmlError::Timeout) => Ok(None),
            Err(source) => Err(Error::Events { source }),
        }
    }

    fn recovery_action(&self) -> Option<RecoveryAction> {
        let sample = self.device.field_values_for(&[RECOVERY_ACTION]).ok()?.into_iter().next()?.ok()?;
        match sample.value.ok()? {
            SampleValue::U32(number) => Some(RecoveryAction::of(number.into())),
            SampleValue::U64(number) => Some(RecoveryAction::of(number)),
            SampleValue::I64(_) | SampleValue::F64(_) => None,
        }
    }

    fn usage(&self) -> Option<Usage> {
        let utilisation = f64::from(self.device.utilization_rates().ok()?.gpu) / 100.0;
        Some(Usage { utilisation, memory: self.device.memory_info().ok()?.used })
    }
}

//! From evidence to decision: verdict, remediation, schedule, standing. Pure; the time is passed in.

pub mod decide;
pub mod evidence;
pub mod hang;
pub mod observation;
pub mod operator;
pub mod remediation;
pub mod schedule;
pub mod standing;
pub mod trend;
pub mod verdict;

//! From evidence to decision: verdict, remediation, schedule, standing. Pure; the time is passed in.

pub mod evidence;
pub mod observation;
pub mod remediation;
pub mod schedule;
pub mod standing;
pub mod verdict;

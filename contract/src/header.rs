//! Header names that gateway and guard exchange; other clients may ignore them.

use http::HeaderName;

/// Response: the engine's [`State`](crate::State).
pub const STATE: HeaderName = HeaderName::from_static("x-speechstack-state");
/// Response: seconds of predicted work ahead in the lane, decimal.
pub const QUEUE_SECONDS: HeaderName = HeaderName::from_static("x-speechstack-queue-seconds");
/// Response: the fault [`Class`](crate::Class) that this reply shows.
pub const CLASS: HeaderName = HeaderName::from_static("x-speechstack-class");
/// Response: `elsewhere` when the fault lies with the engine and another one may serve the same request.
pub const RETRY: HeaderName = HeaderName::from_static("x-speechstack-retry");
/// Response: the name of the engine that answered.
pub const ENGINE: HeaderName = HeaderName::from_static("x-speechstack-engine");
/// Request: seconds of audio in (or expected out of) the request, decimal.
pub const AUDIO_SECONDS: HeaderName = HeaderName::from_static("x-speechstack-audio-seconds");
/// Request: `1` when it is the next piece of a job whose earlier pieces were served, such as a long speech.
pub const CONTINUES: HeaderName = HeaderName::from_static("x-speechstack-continues");
/// Request: `long` when it is a piece of a long file or a job that runs in the background: short work of others goes first.
pub const PRIORITY: HeaderName = HeaderName::from_static("x-speechstack-priority");
/// Request: 16 hexadecimal digits that stand for the client's name where the gateway asks for API keys. A lane serves those that
/// wait for it in turn.
pub const TENANT: HeaderName = HeaderName::from_static("x-speechstack-tenant");
/// Request: xxh3-64 of the client's file, hexadecimal, where it is known before the request is sent. The engine may get the file
/// converted; the hash stays that of the file.
pub const INPUT: HeaderName = HeaderName::from_static("x-speechstack-input");
/// Response: the input wedged engines before and is refused.
pub const POISON: HeaderName = HeaderName::from_static("x-speechstack-poison");
/// Both: the request's id from end to end.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

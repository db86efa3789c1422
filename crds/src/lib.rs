//! The SpeechStack API types.

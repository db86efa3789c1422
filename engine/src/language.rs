//! The one language of the reference engine, by its BCP-47 tags.

/// The tag of the language.
pub const ENGLISH: &str = "en-US";
/// The tag by which a client leaves the choice to the engine.
pub const MULTI: &str = "multi";

/// Whether recognition takes this tag: the language with its region, or `multi`. As in NVIDIA's recognition NIM, a
/// language without a region is no tag.
#[must_use]
pub fn recognized(tag: &str) -> bool {
    tag.eq_ignore_ascii_case(ENGLISH) || tag.eq_ignore_ascii_case(MULTI)
}

/// Whether synthesis takes this tag.
#[must_use]
pub fn synthesized(tag: &str) -> bool {
    tag.eq_ignore_ascii_case(ENGLISH) || tag.eq_ignore_ascii_case("en")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognition_needs_a_region_and_synthesis_does_not() {
        assert!(recognized("en-us") && recognized("multi") && synthesized("EN"));
        for other in ["", "en", "de-DE", "en-GB"] {
            assert!(!recognized(other), "{other}");
        }
        assert!(!synthesized("multi") && !synthesized("de-DE"));
    }
}

//! Vocabulary that NVIDIA's recognition servers are to favour, taken from a client's prompt.

/// Weight of the phrases. Transducers take 0.5 to 3, and more makes them hear phrases that were not said; CTC models take
/// 8 to 100, and this little helps them only a little. The protocol does not tell which one the engine has.
pub(super) const BOOST: f32 = 2.0;

/// The phrases of a prompt: what is between its commas and line ends.
pub(super) fn phrases(prompt: Option<&str>) -> Vec<String> {
    let pieces = prompt.unwrap_or_default().split([',', '\n', '\r']);
    pieces.map(str::trim).filter(|phrase| !phrase.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_between_commas_and_line_ends() {
        assert_eq!(
            phrases(Some("Nvidia, Grace Hopper\r\n,Kowalczyk,")),
            ["Nvidia", "Grace Hopper", "Kowalczyk"]
        );
        assert!(phrases(Some(" ,\n")).is_empty() && phrases(None).is_empty());
    }
}

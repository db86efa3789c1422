//! The `speak` subcommand.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use futures::StreamExt;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::args::Speak;
use crate::client::{Client, Tries};
use crate::error::Error;

/// Longest text of a request, in characters.
const MAX_CHARS: usize = 4_096;

/// Speaks a text into a file or the output, as the audio comes.
///
/// # Errors
/// When there is no text or place to write, or the gateway refuses.
pub async fn run(client: &Client, order: &Speak) -> Result<(), Error> {
    if order.out.is_none() && std::io::stdout().is_terminal() {
        return Err(Error::Usage(
            "--out FILE says where the audio goes; or pipe it into a player".to_owned(),
        ));
    }
    let text = text(order)?;
    let mut body =
        json!({"model": order.model, "voice": order.voice, "input": text, "response_format": format(order)});
    if let Some(speed) = order.speed {
        body["speed"] = json!(speed);
    }
    let mut tries = Tries::default();
    let response = loop {
        match client.send(client.request(Method::POST, "/v1/audio/speech").json(&body)).await {
            Ok(response) => break response,
            Err(error) => tries.again(error).await?,
        }
    };
    let mut blocks = response.bytes_stream();
    let unfinished = order.out.as_ref().map(|path| {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        path.with_file_name(name)
    });
    let failed = |source| Error::File { path: order.out.clone().unwrap_or_default(), source };
    let mut to: Box<dyn AsyncWrite + Unpin> = match &unfinished {
        Some(path) => Box::new(tokio::fs::File::create(path).await.map_err(failed)?),
        None => Box::new(tokio::io::stdout()),
    };
    while let Some(block) = blocks.next().await {
        to.write_all(&block.map_err(|error| client.silent(&error))?).await.map_err(failed)?;
    }
    to.flush().await.map_err(failed)?;
    drop(to);
    match (&unfinished, &order.out) {
        (Some(unfinished), Some(path)) => tokio::fs::rename(unfinished, path).await.map_err(failed),
        _ => Ok(()),
    }
}

fn text(order: &Speak) -> Result<String, Error> {
    let mut text = order.text.join(" ");
    if order.text.is_empty() {
        if std::io::stdin().is_terminal() {
            return Err(Error::Usage("no text: give it as an argument or on the input".to_owned()));
        }
        std::io::stdin().read_to_string(&mut text)?;
    }
    let text = text.trim();
    match text.chars().count() {
        0 => Err(Error::Usage("the text is empty".to_owned())),
        count if count > MAX_CHARS => Err(Error::Usage(format!(
            "the text has {count} characters, {MAX_CHARS} are allowed; speak its parts"
        ))),
        _ => Ok(text.to_owned()),
    }
}

/// The format that is asked for, by the file's ending if not by name.
fn format(order: &Speak) -> String {
    let ending = |path: &PathBuf| Some(path.extension()?.to_str()?.to_ascii_lowercase());
    let named = order.format.clone().or_else(|| order.out.as_ref().and_then(ending));
    match named.as_deref() {
        None => "mp3".to_owned(),
        Some("ogg" | "oga") => "opus".to_owned(),
        Some("m4a") => "aac".to_owned(),
        Some(name) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_gives_the_format_unless_one_is_named() {
        let order = |format: Option<&str>, out: Option<&str>| Speak {
            text: vec!["x".into()],
            out: out.map(PathBuf::from),
            format: format.map(str::to_owned),
            voice: String::new(),
            model: String::new(),
            speed: None,
        };
        for (named, out, expected) in [
            (None, None, "mp3"),
            (None, Some("a.WAV"), "wav"),
            (None, Some("a.ogg"), "opus"),
            (Some("flac"), Some("a.bin"), "flac"),
        ] {
            assert_eq!(format(&order(named, out)), expected);
        }
    }
}

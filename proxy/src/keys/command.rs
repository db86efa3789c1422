//! `speechstack-proxy keys`: makes, lists and revokes keys in a file.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};

use crate::config::Limits;
use crate::keys::file::{Error, File, NewKey, Record, Scopes};

/// What to do with the keys of a file.
#[derive(Clone, Debug, Args)]
pub struct Order {
    /// What to do.
    #[command(subcommand)]
    command: Command,
    /// The file of keys.
    #[arg(long, env = "SPEECHSTACK_KEYS", default_value = "keys.yaml", value_name = "FILE", global = true)]
    file: PathBuf,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Makes a key and writes it to standard output, where it is to be seen this once: the file has its hash.
    Add(Add),
    /// Lists the keys, without their secrets.
    List,
    /// Removes the key of that id, or all keys of that name.
    Revoke {
        /// An id or a name.
        key: String,
    },
}

/// A key to make.
#[derive(Clone, Debug, Args)]
struct Add {
    /// Whose key it is: letters, digits, `-`, `_`, `.`, `@`, `+`. Keys of one name share quotas and usage.
    name: String,
    /// When it ends: a span such as `90d` or `12h`, or a time such as `2027-01-31T00:00:00Z`; never when left out.
    #[arg(long, value_parser = expiry)]
    expires: Option<Timestamp>,
    /// Its tier of `gateway.quotas.tiers`.
    #[arg(long)]
    tier: Option<String>,
    /// The client dialects it may speak; all when left out.
    #[arg(long, value_delimiter = ',')]
    dialects: Vec<String>,
    /// The models it may name; all when left out.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// It may see the usage of all names and change keys.
    #[arg(long)]
    admin: bool,
    /// Its work stays on one's own engines, and is refused rather than given to those of others.
    #[arg(long)]
    own_engines: bool,
    /// Requests a minute.
    #[arg(long)]
    requests_per_minute: Option<u32>,
    /// Requests that cost engine time, at a time.
    #[arg(long)]
    jobs: Option<u32>,
    /// Sessions at a time.
    #[arg(long)]
    streams: Option<u32>,
    /// Minutes of audio that are heard, a day.
    #[arg(long)]
    audio_minutes_per_day: Option<f64>,
    /// Characters that are spoken, a day.
    #[arg(long)]
    characters_per_day: Option<u64>,
}

fn expiry(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<i64>().ok());
    let span = match days {
        Some(days) => days.checked_mul(24).map(SignedDuration::from_hours),
        None => text.parse::<SignedDuration>().ok(),
    };
    let span = span.filter(SignedDuration::is_positive);
    let at = span.and_then(|span| Timestamp::now().checked_add(span).ok());
    at.ok_or_else(|| "expected a span such as 90d or 12h, or a time such as 2027-01-31T00:00:00Z".into())
}

/// Carries it out.
///
/// # Errors
/// [`Error`]; the file is then as it was.
pub fn run(order: &Order) -> Result<(), Error> {
    let said = match &order.command {
        Command::Add(wanted) => {
            let (record, text) = new(wanted)?;
            File::change(&order.file, |file| {
                file.keys.push(record);
                Ok(())
            })?;
            text + "\n"
        }
        Command::List => table(&File::read(&order.file)?),
        Command::Revoke { key } => {
            let count = File::change(&order.file, |file| file.revoke(key))?;
            format!("{count} revoked\n")
        }
    };
    // A reader that is gone has what it wants.
    let _ = io::stdout().write_all(said.as_bytes());
    Ok(())
}

/// The record of a new key, and its text.
fn new(wanted: &Add) -> Result<(Record, String), Error> {
    let wanted = NewKey {
        name: wanted.name.clone(),
        expires: wanted.expires,
        tier: wanted.tier.clone(),
        scopes: Scopes {
            dialects: wanted.dialects.clone(),
            models: wanted.models.clone(),
            admin: wanted.admin,
            own_engines: wanted.own_engines,
        },
        limits: Limits {
            requests_per_minute: wanted.requests_per_minute,
            jobs: wanted.jobs,
            streams: wanted.streams,
            audio_minutes_per_day: wanted.audio_minutes_per_day,
            characters_per_day: wanted.characters_per_day,
        },
    };
    wanted.make()
}

fn table(file: &File) -> String {
    let mut out = format!("{:<16}  {:<24}  {:<20}  {:<12}  SCOPES\n", "ID", "NAME", "EXPIRES", "TIER");
    for record in &file.keys {
        let scopes = &record.scopes;
        let named = |what: &str, names: &[String]| match names {
            [] => String::new(),
            names => format!("{what}={} ", names.join(",")),
        };
        let admin = if scopes.admin { "admin " } else { "" };
        let own = if scopes.own_engines { "own_engines " } else { "" };
        let scopes =
            format!("{admin}{own}{}{}", named("dialects", &scopes.dialects), named("models", &scopes.models));
        let expires = record.expires.map_or_else(|| "never".to_owned(), |at| at.to_string());
        let tier = record.tier.as_deref().unwrap_or("-");
        let line = format!("{:<16}  {:<24}  {expires:<20}  {tier:<12}  {scopes}", record.id, record.name);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::keys::set::Set;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        order: Order,
    }

    fn order(words: &[&str]) -> Result<Order, clap::Error> {
        Line::try_parse_from([&["keys"], words].concat()).map(|line| line.order)
    }

    #[test]
    fn a_key_is_made_listed_and_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.yaml");
        let file = path.to_str().unwrap();
        let order = order(&[
            "add",
            "alice",
            "--expires",
            "90d",
            "--dialects",
            "openai,tldw",
            "--jobs",
            "2",
            "--file",
            file,
        ]);
        let Command::Add(wanted) = order.unwrap().command else { panic!() };
        let (record, text) = new(&wanted).unwrap();
        File::change(&path, |file| {
            file.keys.push(record);
            Ok(())
        })
        .unwrap();
        let kept = std::fs::read_to_string(&path).unwrap();
        let secret = text.rsplit_once('_').unwrap().1;
        assert!(!kept.contains(secret) && kept.contains("alice"), "{kept}");
        let read = File::read(&path).unwrap();
        let listed = table(&read);
        assert!(listed.contains("alice") && listed.contains("dialects=openai,tldw"), "{listed}");
        let now = u64::try_from(Timestamp::now().as_second()).unwrap();
        let set = Set::of(read);
        assert_eq!(set.check(&text, now).unwrap().limits.jobs, Some(2));
        assert!(set.check(&text, now + 89 * 86_400).is_ok() && set.check(&text, now + 91 * 86_400).is_err());
        assert!(File::change(&path, |file| file.revoke("bob")).is_err());
        assert_eq!(File::change(&path, |file| file.revoke("alice")).unwrap(), 1);
        assert!(File::read(&path).unwrap().keys.is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_field() {
        for wrong in
            [&["add"][..], &["add", "a", "--expires", "soon"], &["add", "a", "--expires=-1h"], &["drop"]]
        {
            assert!(order(wrong).is_err(), "{wrong:?}");
        }
        let Command::Add(wanted) = order(&["add", "two words"]).unwrap().command else { panic!() };
        assert!(new(&wanted).err().unwrap().to_string().contains("name"));
        let Command::Add(wanted) = order(&["add", "a", "--dialects", "morse"]).unwrap().command else {
            panic!()
        };
        assert!(new(&wanted).err().unwrap().to_string().contains("scopes.dialects"));
    }
}

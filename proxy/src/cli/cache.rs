//! `underpass cache`: what the cache of a running proxy holds, and how it is made to forget. Asks
//! the admin endpoint.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::config::value;

/// How long the endpoint may take. A purge looks at everything that is stored.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest answer that is read.
const MOST_BYTES: u64 = 1 << 20;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show what is in the cache, as JSON.
    Stats(At),
    /// Forget answers by URL, by prefix, by tag, or all of them.
    Purge(Purge),
}

/// Where the proxy is asked.
#[derive(Debug, clap::Args)]
pub(super) struct At {
    /// Address of the admin endpoint
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9900", value_parser = value::address)]
    admin: SocketAddr,
}

#[derive(Debug, clap::Args)]
pub(super) struct Purge {
    #[command(flatten)]
    at: At,

    /// File with the token of the admin endpoint [default: UNDERPASS_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    what: What,
}

/// What is forgotten.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// This URL, in all its variants
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// All URLs that begin so
    #[arg(long, value_name = "URL")]
    prefix: Option<String>,

    /// All answers that had this in `Surrogate-Key` or `Cache-Tag`
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,

    /// Everything
    #[arg(long)]
    all: bool,
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let answer = match command {
        Command::Stats(at) => ask(at.admin, "GET", "/cache", None)?,
        Command::Purge(Purge { at, token_file, what }) => {
            let token = match token_file {
                Some(path) => std::fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?,
                None => std::env::var("UNDERPASS_ADMIN_TOKEN")
                    .context("the token is needed: --token-file, or UNDERPASS_ADMIN_TOKEN")?,
            };
            let path = format!("/cache/purge?{}", what.query());
            ask(at.admin, "POST", &path, Some(token.trim()))?
        }
    };
    // A reader that has seen enough is no error.
    let _ = std::io::stdout().lock().write_all(format!("{}\n", answer.trim_end()).as_bytes());
    Ok(ExitCode::SUCCESS)
}

impl What {
    fn query(&self) -> String {
        let pairs = [("url", &self.url), ("prefix", &self.prefix), ("tag", &self.tag)];
        let given = pairs.iter().find_map(|(name, value)| Some((*name, value.as_ref()?)));
        match given {
            Some((name, value)) => format!("{name}={}", encoded(value)),
            None => "all=true".to_owned(),
        }
    }
}

/// All but the unreserved characters of RFC 3986 section 2.3 percent-encoded.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn ask(admin: SocketAddr, method: &str, path: &str, token: Option<&str>) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(5))
        .with_context(|| format!("connecting to the admin endpoint at {admin}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\n{}Content-Length: 0\r\nConnection: close\r\n\r\n",
        token.unwrap_or_default()
    );
    stream.write_all(request.as_bytes()).context("asking")?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer).context("reading the answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer of HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => Ok(body.to_owned()),
        _ => bail!("the admin endpoint says {status}: {}", body.trim()),
    }
}

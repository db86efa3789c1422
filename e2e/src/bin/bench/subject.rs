//! The programs that are measured: nginx, the gateway and the guard, each as its own process.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use speechstack_e2e::client::Client;
use speechstack_e2e::{binaries, ports, processes};

use crate::fake::Fake;
use crate::meter;

/// A program in front of an engine; killed when dropped.
#[derive(Debug)]
pub struct Subject {
    child: Child,
    /// Where it takes requests.
    pub address: SocketAddr,
}

/// Addresses of the two engines, or of what stands before them.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Speech to text.
    pub stt: SocketAddr,
    /// Text to speech.
    pub tts: SocketAddr,
}

/// A program that counts what another one does.
#[derive(Clone, Copy, Debug)]
pub enum Tool {
    /// Instructions.
    Callgrind,
    /// System calls.
    Strace,
}

impl Tool {
    /// Where Debian puts it.
    pub fn program(self) -> &'static str {
        match self {
            Tool::Callgrind => "/usr/bin/valgrind",
            Tool::Strace => "/usr/bin/strace",
        }
    }

    /// Its arguments; what it counted goes into `output` when the program ends.
    fn arguments(self, output: &Path) -> Vec<String> {
        let output = output.display();
        match self {
            Tool::Callgrind => {
                vec!["--tool=callgrind".into(), "-q".into(), format!("--callgrind-out-file={output}")]
            }
            // All threads.
            Tool::Strace => vec!["-f".into(), "-c".into(), "-o".into(), output.to_string()],
        }
    }
}

/// A tool, and where it writes what it counts.
pub type Under<'a> = Option<(Tool, &'a Path)>;

/// How much a gateway logs.
#[derive(Clone, Copy, Debug)]
pub enum Log {
    /// As it does by itself, a line for each request.
    Default,
    /// Warnings.
    Warnings,
    /// Nothing.
    Off,
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Subject {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident KiB after it has come to rest.
    pub fn idle_kib(&self) -> Result<u64> {
        std::thread::sleep(Duration::from_secs(2));
        meter::resident_kib(self.pid())
    }

    /// Asks it to stop and waits until it has; under a tool, until the tool has written what it counted.
    pub fn stop(mut self) -> Result<()> {
        let own = Pid::from_raw(self.pid().cast_signed()).context("no process")?;
        // strace has the program as its child and ignores signals to itself; valgrind is the program's own process.
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid()))?;
        let child =
            children.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        processes::signal(child.unwrap_or(own), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the program ended with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the program does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawn(command: Command, address: SocketAddr, log: &Path) -> Result<Self> {
        Self::spawn_logging(command, address, log, Log::Warnings)
    }

    fn spawn_logging(mut command: Command, address: SocketAddr, log: &Path, level: Log) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("unable to write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        match level {
            Log::Default => command.env_remove("SPEECHSTACK_LOG"),
            Log::Warnings => command.env("SPEECHSTACK_LOG", "warn"),
            Log::Off => command.env("SPEECHSTACK_LOG", "off"),
        };
        let child = command.spawn().with_context(|| format!("unable to start {command:?}"))?;
        let mut subject = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = subject.child.try_wait()? {
                bail!(
                    "{command:?} ended with {status}: {}",
                    std::fs::read_to_string(log).unwrap_or_default()
                );
            }
            ensure!(Instant::now() < deadline, "{command:?} does not listen on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(subject)
    }
}

/// The real engine, for golden probes only.
pub fn engine(kind: &str, folder: &Path) -> Result<Subject> {
    let address = ports::free()?;
    let mut command = processes::tied_command(&binaries::find(binaries::ENGINE)?);

    command.args(["--kind", kind, "--listen", &address.to_string()]);
    Subject::spawn(command, address, &folder.join(format!("{kind}.log")))
}

/// A program of this project or another, perhaps under a tool.
fn command(program: &Path, under: Under<'_>) -> Command {
    match under {
        None => processes::tied_command(program),
        Some((tool, output)) => {
            let mut command = processes::tied_command(Path::new(tool.program()));
            // Where a processor has a string instruction for copies, each byte of a long one would count as an instruction.
            command.env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824");
            command.args(tool.arguments(output)).arg(program);
            command
        }
    }
}

/// The bare pass-through, which is this program with other arguments.
pub fn passthrough(engines: Pair, folder: &Path, under: Under<'_>) -> Result<Subject> {
    let address = ports::free()?;
    let mut command = command(&std::env::current_exe()?, under);
    let arguments = [address, engines.stt, engines.tts].map(|address| address.to_string());
    command.arg("--pass-through").args(arguments);
    Subject::spawn(command, address, &folder.join("passthrough.log"))
}

/// A relay of bytes to an address, which is this program with other arguments.
pub fn raw_relay(target: SocketAddr) -> Result<Subject> {
    let address = ports::free()?;
    let mut command = command(&std::env::current_exe()?, None);
    command.arg("--raw-relay").args([address, target].map(|address| address.to_string()));
    Subject::spawn(command, address, &binaries::logs()?.join("raw-relay.log"))
}

/// nginx, streaming both ways, one process, without an access log.
pub fn nginx(engines: Pair, folder: &Path, under: Under<'_>) -> Result<Option<Subject>> {
    let Some(program) =
        ["/usr/sbin/nginx", "/usr/bin/nginx"].map(Path::new).into_iter().find(|path| path.exists())
    else {
        return Ok(None);
    };
    let address = ports::free()?;
    let temp = folder.display();
    let Pair { stt, tts } = engines;
    let config = format!(
        "daemon off; master_process off; pid {temp}/nginx.pid; error_log {temp}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; tcp_nodelay on; client_max_body_size 0; keepalive_requests 10000000;
  client_body_temp_path {temp}/body; proxy_temp_path {temp}/proxy; fastcgi_temp_path {temp}/fastcgi;
  uwsgi_temp_path {temp}/uwsgi; scgi_temp_path {temp}/scgi;
  upstream stt {{ server {stt}; keepalive 64; keepalive_requests 10000000; }}
  upstream tts {{ server {tts}; keepalive 64; keepalive_requests 10000000; }}
  proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_request_buffering off; proxy_buffering off;
  proxy_read_timeout 600s; proxy_send_timeout 600s; client_body_timeout 600s;
  server {{
    listen {address};
    location / {{ proxy_pass http://stt; }}
    location /v1/audio/synthesize {{ proxy_pass http://tts; }}
  }}
}}
"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = command(program, under);
    command.arg("-e").arg(folder.join("nginx-error.log")).arg("-p").arg(folder).arg("-c").arg(&file);
    Subject::spawn(command, address, &folder.join("nginx.log")).map(Some)
}

/// SMG (Shepherd Model Gateway) of a Python environment, in front of the engine of speech to text.
pub fn smg(environment: &Path, engines: Pair, folder: &Path) -> Result<Subject> {
    let address = ports::free()?;
    let mut command = processes::tied_command(&environment.join("bin/smg"));
    command.args(["launch", "--policy", "round_robin", "--host", &address.ip().to_string()]);
    command.args([
        "--port",
        &address.port().to_string(),
        "--worker-urls",
        &format!("http://{}", engines.stt),
    ]);
    Subject::spawn(command, address, &folder.join("smg.log"))
}

/// The proxy of LiteLLM of a Python environment, in front of the engine of speech to text.
pub fn litellm(environment: &Path, engines: Pair, folder: &Path) -> Result<Subject> {
    let address = ports::free()?;
    let engine = format!("http://{}/v1", engines.stt);
    let parameters = json!({"model": "openai/whisper-1", "api_base": engine, "api_key": "none"});
    let config = json!({"model_list": [{"model_name": "whisper-1", "litellm_params": parameters}]});
    let file = folder.join("litellm.yaml");
    std::fs::write(&file, config.to_string())?;
    let mut command = processes::tied_command(&environment.join("bin/litellm"));
    command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "true");
    command.args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.arg("--config").arg(&file);
    Subject::spawn(command, address, &folder.join("litellm.log"))
}

/// A guard's lane that takes all jobs at once: its queue is not what is measured.
pub fn open_lane() -> Value {
    json!({"jobs": 64, "max_wait_seconds": 1e6, "seconds_per_audio_second": 0.0001})
}

/// The configuration shared by a gateway and its guards.
#[derive(Debug)]
pub struct Proxies {
    file: std::path::PathBuf,
    folder: std::path::PathBuf,
    gateway: SocketAddr,
    admin: SocketAddr,
    guards: Pair,
}

impl Proxies {
    /// Writes a configuration whose engines are `engines`. Unless `guarded` the fake engines play their own guards.
    pub fn new(name: &str, engines: Pair, guarded: bool, lane: Value, folder: &Path) -> Result<Self> {
        let (gateway, admin) = (ports::free()?, ports::free()?);
        let mut guards = engines;
        let entry = |name: &str, kind: &str, engine: SocketAddr, guard: &mut SocketAddr| -> Result<Value> {
            let mut guard_admin = Fake::admin(engine);
            if guarded {
                (*guard, guard_admin) = (ports::free()?, ports::free()?);
            }
            Ok(json!({
                "name": name, "capability": kind, "url": format!("http://{engine}"),
                "guard": guard, "guard_admin": guard_admin,
            }))
        };
        let entries = [
            entry("stt-0", "stt", engines.stt, &mut guards.stt)?,
            entry("tts-0", "tts", engines.tts, &mut guards.tts)?,
        ];
        let config = json!({
            // What the other gateways do not do is measured by itself.
            "gateway": {"listen": gateway, "admin": admin, "spool": {"dir": folder}, "long": {"split_after": "0s"}},
            // Probes would be noise: one verification at the start is enough.
            "guard": {"probe": {"idle_period": "12h", "content_period": "12h"}, "lane": lane},
            "engines": entries,
        });
        let file = folder.join(format!("{name}.yaml"));
        std::fs::write(&file, format!("{config:#}\n"))?;
        Ok(Self { file, folder: folder.to_owned(), gateway, admin, guards })
    }

    /// Writes a configuration of two engines of speech to text that play their own guards, how they are spoken to, and beyond
    /// which length files are split.
    pub fn hearing(
        name: &str,
        engines: [SocketAddr; 2],
        protocol: &str,
        split_after: &str,
        folder: &Path,
    ) -> Result<Self> {
        let (gateway, admin) = (ports::free()?, ports::free()?);
        let entries = engines.iter().enumerate().map(|(nth, engine)| {
            let (name, admin) = (format!("stt-{nth}"), Fake::admin(*engine));
            json!({
                "name": name, "capability": "stt", "url": format!("http://{engine}"), "protocols": [protocol],
                "guard": engine, "guard_admin": admin,
            })
        });
        let long = json!({"split_after": split_after});
        let config = json!({
            "gateway": {"listen": gateway, "admin": admin, "spool": {"dir": folder}, "long": long},
            "engines": entries.collect::<Vec<_>>(),
        });
        let file = folder.join(format!("{name}.yaml"));
        std::fs::write(&file, format!("{config:#}\n"))?;
        let guards = Pair { stt: engines[0], tts: engines[1] };
        Ok(Self { file, folder: folder.to_owned(), gateway, admin, guards })
    }

    /// Starts the guard of the engine of that kind.
    pub fn guard(&self, kind: &str, under: Under<'_>) -> Result<Subject> {
        let address = if kind == "stt" { self.guards.stt } else { self.guards.tts };
        let mut command = self.command(under, "guard")?;
        command.args(["--engine", &format!("{kind}-0")]);
        let log = self.folder.join(format!("guard-{kind}.log"));
        Subject::spawn_logging(command, address, &log, Log::Default)
    }

    /// Starts the gateway and waits until it is ready.
    pub async fn gateway(&self) -> Result<Subject> {
        self.gateway_under(None, Log::Default).await
    }

    /// As [`Self::gateway`], perhaps under a tool.
    pub async fn gateway_under(&self, under: Under<'_>, log: Log) -> Result<Subject> {
        let command = self.command(under, "gateway")?;
        let file = self.folder.join("gateway.log");
        let subject = Subject::spawn_logging(command, self.gateway, &file, log)?;
        let admin = Client::new(format!("http://{}", self.admin), Duration::from_secs(5))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match admin.get("/readyz").await {
                Ok(reply) if reply.status == 200 => return Ok(subject),
                last => ensure!(Instant::now() < deadline, "the gateway is not ready: {last:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn command(&self, under: Under<'_>, subcommand: &str) -> Result<Command> {
        let mut command = command(&binaries::find(binaries::PROXY)?, under);
        command.arg(subcommand).arg("--config").arg(&self.file);
        Ok(command)
    }
}

//! What is to be run, and its translation into what the system takes.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::directory::Directory;
use super::limits::Limits;
use crate::sys::child::{Program, User};

/// Where programs are looked for if the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// One command.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The caller's name for it, below 2^62 and used once at a time.
    pub key: u64,
    /// The program, looked up in the PATH of `env` unless it has a slash, and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where it runs; None: where this process is.
    pub cwd: Option<Vec<u8>>,
    /// What it can read; None: nothing (`/dev/null`).
    pub stdin: Option<Vec<u8>>,
    /// How long it may run; None: for ever.
    pub timeout: Option<Duration>,
    /// How long it has between TERM and KILL.
    pub grace: Duration,
    /// Where it is given a directory for itself and its user alone, which is empty when it starts and
    /// goes with all in it after the end of its last process. It is told of it as `ORQESTRA_TMPDIR`, and as `TMPDIR` unless
    /// `env` has one.
    pub directory: Option<Vec<u8>>,
    /// What a file in that directory holds, of which it is told as `ORQESTRA_PREVIOUS_OUTPUT_FILE`.
    pub previous_output: Option<Vec<u8>>,
    /// What it may use.
    pub limits: Limits,
    /// Whom it runs as; None: whoever runs this process.
    pub user: Option<User>,
    /// Whether what it leaves running when it ends by itself may stay, and the directory with the last of
    /// it. Nobody reads its output any more.
    pub allow_background: bool,
}

impl Command {
    /// The command as the system takes it, or a sentence on why it can't. `counted`: something else
    /// counts its processes.
    pub(super) fn program(
        &self,
        directory: Option<&Directory>,
        counted: bool,
    ) -> Result<Program, String> {
        let name = self
            .argv
            .first()
            .filter(|name| !name.is_empty())
            .ok_or("argv: there is no program")?;
        if self.previous_output.is_some() && self.directory.is_none() {
            return Err("previous_output: there is no directory to hold it".into());
        }
        let argv = self.argv.iter().enumerate();
        let env = self.env.iter().map(|(name, value)| variable(name, value));
        let told = directory.map(|directory| self.told(directory));
        let told = told.unwrap_or_default().into_iter().map(Ok);
        Ok(Program {
            paths: self.paths(name)?,
            argv: argv
                .map(|(index, word)| text([word], || format!("argv[{index}]")))
                .collect::<Result<_, _>>()?,
            env: env.chain(told).collect::<Result<_, _>>()?,
            cwd: self
                .cwd
                .as_ref()
                .map(|cwd| text([cwd], || "cwd".into()))
                .transpose()?,
            niceness: self.limits.nice,
            limits: self.limits.of_process(!counted && self.has_own_user()),
            user: self.user.clone(),
            oom_score: None,
        })
    }

    /// The list of directories that a program without a slash is looked for in.
    pub(super) fn search_path(&self) -> &[u8] {
        let path = self.env.iter().find(|(name, _)| name == b"PATH");
        path.map_or(DEFAULT_PATH, |(_, value)| value)
    }

    /// What it is told of its directory.
    fn told(&self, directory: &Directory) -> Vec<CString> {
        let path = directory.path().as_os_str().as_bytes();
        let previous = directory.previous_output();
        let mut told = vec![(&b"ORQESTRA_TMPDIR"[..], path)];
        if self.env.iter().all(|(name, _)| name != b"TMPDIR") {
            told.push((b"TMPDIR", path));
        }
        if self.previous_output.is_some() {
            let previous = previous.as_os_str().as_bytes();
            told.push((b"ORQESTRA_PREVIOUS_OUTPUT_FILE", previous));
        }
        // A path that the system has made holds no NUL.
        let variables = told
            .into_iter()
            .map(|(name, value)| variable(name, value).unwrap_or_default());
        variables.collect()
    }

    /// Whether it runs as somebody whose processes can be counted.
    fn has_own_user(&self) -> bool {
        self.user.as_ref().is_some_and(|user| user.uid != 0)
    }

    fn paths(&self, name: &[u8]) -> Result<Vec<CString>, String> {
        if name.contains(&b'/') {
            return Ok(vec![text([name], || "argv[0]".into())?]);
        }
        let folders = self.search_path().split(|&byte| byte == b':');
        // An empty entry is the working directory, as in a shell.
        let folders = folders.map(|folder| if folder.is_empty() { b"." } else { folder });
        folders
            .map(|folder| text([folder, b"/", name], || "argv[0] or PATH".into()))
            .collect()
    }
}

fn variable(name: &[u8], value: &[u8]) -> Result<CString, String> {
    let shown = || format!("env[{:?}]", String::from_utf8_lossy(name));
    if name.is_empty() || name.contains(&b'=') {
        return Err(format!(
            "{}: the name of a variable can't be empty or hold '='",
            shown()
        ));
    }
    text([name, b"=", value], shown)
}

/// One string of these parts, made in one piece: there are many of them for each command.
fn text<const PARTS: usize>(
    parts: [&[u8]; PARTS],
    field: impl Fn() -> String,
) -> Result<CString, String> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(length + 1);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    CString::new(bytes)
        .map_err(|error| format!("{}: holds a NUL byte at {}", field(), error.nul_position()))
}

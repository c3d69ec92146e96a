//! What is to be run, and its translation into what the system takes.

use std::ffi::CString;
use std::time::Duration;

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
    /// A directory that is made for it and its user alone, and removed with all in it after its end.
    pub directory: Option<Vec<u8>>,
    /// What the file `previous-output` in that directory holds; None: there is no such file.
    pub previous_output: Option<Vec<u8>>,
    /// What it may use.
    pub limits: Limits,
    /// Whom it runs as; None: whoever runs this process.
    pub user: Option<User>,
    /// Whether what it leaves running when it ends by itself may stay. Nobody reads its output any
    /// more, and the directory goes.
    pub allow_background: bool,
}

impl Command {
    /// The command as the system takes it, or a sentence on why it can't. `counted`: something else
    /// counts its processes.
    pub(super) fn program(&self, counted: bool) -> Result<Program, String> {
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
        Ok(Program {
            paths: self.paths(name)?,
            argv: argv
                .map(|(index, word)| text(word, || format!("argv[{index}]")))
                .collect::<Result<_, _>>()?,
            env: env.collect::<Result<_, _>>()?,
            cwd: self
                .cwd
                .as_ref()
                .map(|cwd| text(cwd, || "cwd".into()))
                .transpose()?,
            niceness: self.limits.nice,
            limits: self.limits.of_process(!counted && self.has_own_user()),
            user: self.user.clone(),
        })
    }

    /// The list of directories that a program without a slash is looked for in.
    pub(super) fn search_path(&self) -> &[u8] {
        let path = self.env.iter().find(|(name, _)| name == b"PATH");
        path.map_or(DEFAULT_PATH, |(_, value)| value)
    }

    /// Whether it runs as somebody whose processes can be counted.
    fn has_own_user(&self) -> bool {
        self.user.as_ref().is_some_and(|user| user.uid != 0)
    }

    fn paths(&self, name: &[u8]) -> Result<Vec<CString>, String> {
        if name.contains(&b'/') {
            return Ok(vec![text(name, || "argv[0]".into())?]);
        }
        let folders = self.search_path().split(|&byte| byte == b':');
        // An empty entry is the working directory, as in a shell.
        let folders = folders.map(|folder| if folder.is_empty() { b"." } else { folder });
        folders
            .map(|folder| text(&[folder, b"/", name].concat(), || "argv[0] or PATH".into()))
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
    text(&[name, b"=", value].concat(), shown)
}

fn text(bytes: &[u8], field: impl Fn() -> String) -> Result<CString, String> {
    CString::new(bytes)
        .map_err(|error| format!("{}: holds a NUL byte at {}", field(), error.nul_position()))
}

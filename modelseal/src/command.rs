//! The `modelseal` command, for whatever program carries it.
//!
//! It takes the process as its own: it may end it, make a copy of it, leave for another mount namespace, and replaces what
//! is done with signals.

mod args;
#[cfg(feature = "attest")]
mod attest;
#[cfg(feature = "attest")]
mod broker;
mod console;
mod create;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod daemon;
#[cfg(feature = "dev-kbs")]
mod dev_kbs;
#[cfg(target_os = "linux")]
mod doctor;
mod exit;
mod keys;
mod license;
mod look;
mod manifest;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod mount;
mod open;
#[cfg(target_os = "linux")]
mod run;

use std::ffi::OsString;

use rustix::process::{Resource, Rlimit, setrlimit};

pub use self::args::{SealSettings, Settings};
#[cfg(feature = "attest")]
pub use self::attest::evidence_json;
pub use self::license::{issue as issue_license, to_json as license_json};
pub use self::look::info_json;

use self::args::{Args, Command, KeyCommand, LicenseCommand, ManifestCommand};
use self::console::Console;

/// Runs the command with these arguments, the name of the program first, and returns what the process is to end with. What
/// is printed goes to standard output and standard error.
///
/// The process must have one thread only: `mount --background` and `run` cannot work in one with more.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    // A core dump would hold keys and plaintext.
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    let args = match Args::read(args) {
        Ok(args) => args,
        Err(error) => {
            // Where nobody reads it, that is all the same.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let console = Console::new(&args.global);
    match dispatch(&args, &console) {
        Ok(exit) => exit.code(),
        Err(error) => {
            console.error(&error, exit::hint(&error));
            exit::of(&error).code()
        }
    }
}

fn dispatch(args: &Args, console: &Console) -> Result<exit::Exit, exit::Failure> {
    match &args.command {
        Command::Encrypt(command) => create::encrypt(command, &args.global, console),
        Command::Decrypt(command) => open::decrypt(command, &args.global, console),
        Command::Ls(command) => look::ls(command, &args.global, console),
        Command::Cat(command) => open::cat(command, &args.global, console),
        #[cfg(all(feature = "fuse", target_os = "linux"))]
        Command::Mount(command) => mount::mount(command, &args.global, console),
        Command::Info(command) => look::info(command, &args.global),
        Command::Verify(command) => open::verify(command, &args.global, console),
        Command::Passwd(command) => keys::passwd(command, &args.global, console),
        Command::SamPack(command) => create::sam_pack(command, &args.global, console),
        Command::Rotate(command) => create::rotate(command, &args.global, console),
        Command::License(command) => match command {
            LicenseCommand::Keygen(command) => license::keygen(command, console),
            LicenseCommand::Issue(command) => license::issue_command(command, &args.global, console),
            LicenseCommand::Show(command) => license::show(command, &args.global),
            LicenseCommand::Verify(command) => license::verify(command, &args.global, console),
            LicenseCommand::Machine => license::machine(&args.global),
        },
        Command::Manifest(ManifestCommand::Sign(command)) => manifest::sign(command, &args.global, console),
        Command::Manifest(ManifestCommand::Verify(command)) => {
            manifest::verify(command, &args.global, console)
        }
        Command::Key(KeyCommand::Generate(command)) => keys::generate(command),
        Command::Key(KeyCommand::Export(command)) => keys::export(command, &args.global, console),
        #[cfg(feature = "attest")]
        Command::Key(KeyCommand::Get(command)) => broker::get(command, &args.global, console),
        #[cfg(feature = "attest")]
        Command::Key(KeyCommand::Put(command)) => broker::put(command, console),
        #[cfg(feature = "attest")]
        Command::Key(KeyCommand::Delete(command)) => broker::delete(command, console),
        #[cfg(feature = "attest")]
        Command::Key(KeyCommand::Policy(command)) => broker::policy(command, console),
        #[cfg(feature = "attest")]
        Command::Attest(command) => attest::attest(command, &args.global, console),
        #[cfg(target_os = "linux")]
        Command::Doctor => doctor::doctor(&args.global, console),
        #[cfg(feature = "dev-kbs")]
        Command::DevKbs(command) => dev_kbs::run(command, console),
        #[cfg(target_os = "linux")]
        Command::Run(command) => run::run(command, &args.global, console),
        Command::Completions { shell } => args::completions(*shell),
        Command::Man { directory } => args::man_pages(directory),
    }
}

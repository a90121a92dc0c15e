//! The daemon's life: settings, store, pages; until a signal ends it.

use crate::settings::{Given, Settings};
use crate::store::Store;
use crate::{admin, tell};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the daemon until SIGTERM or SIGINT. The exit code is 1 when it could not start; then standard error says why.
pub fn run(file: Option<&Path>, given: &Given) -> ExitCode {
    let Ok(settings) = Settings::read(file, given) else { return ExitCode::FAILURE };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.map_err(|error| format!("cannot start: {error}")).and_then(|runtime| {
        let ended = runtime.block_on(serve(settings));
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tell::tell(why);
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings) -> Result<(), String> {
    let no_signals = |error| format!("cannot listen to signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let _store = Store::open(&settings.data_dir).map_err(|failure| failure.to_string())?;
    let (admin, _pages) = admin::start(settings.admin).await?;
    tell::tell_ready(format_args!("admin pages at {admin}"));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

//! `landfall audit`: checks the whole installation, from the configuration.

use super::logging;
use crate::server::{self, ProcessParts};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use landfall_core::{
    audit::{self, AuditObserver, AuditOptions, AuditReport, AuditStep, RepairOutcome, Violation},
    config::{Config, ConfigSources},
};
use serde::Serialize;
use std::{io::IsTerminal, path::PathBuf, process::ExitCode, sync::Arc};

/// The exit status of an audit that could not run.
const COULD_NOT_RUN: u8 = 2;

/// Maximum redraws of the bar per second.
const REDRAW_HZ: u8 = 10;

const BAR: &str = "{prefix:20} {bar:20} {pos}/{len} {eta}";
const SPINNER: &str = "{prefix:20} {spinner} {pos}";

/// The help text about the invariants.
pub(super) const INVARIANTS: &str = "\
Invariants:
  I1  Each stored file has its object, with the size in its row; with --deep, the SHA-256 as well.
  I2  Each stored file has one `file.stored` event, and each such event a file.
  I5  No object without a row, no staged bytes without an upload or file, no multipart upload left open.
  I7  Nothing that is due has waited longer than two sweep intervals.";

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Repair what can be repaired: write missing events, enqueue overdue work, delete staged bytes of finished
    /// uploads, and set aside objects without a row (in a folder below `orphaned/`), which a sweep deletes after seven
    /// days. If more than 100 objects and more than 1 % have no row, none of them is touched.
    #[arg(long)]
    pub repair: bool,
    /// With --repair: set aside up to this many objects without a row, regardless of their share.
    #[arg(long, value_name = "COUNT", requires = "repair")]
    pub force_orphans: Option<u64>,
    /// Read every stored object and compare its SHA-256.
    #[arg(long)]
    pub deep: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct AuditOutput<'a> {
    checked: u64,
    offenders: &'a [Violation],
}

/// Runs the audit. Exit status: 0 if no problems remain, 1 if problems were found and not repaired, 2 if the audit
/// could not finish.
pub(super) async fn run(config: Option<PathBuf>, args: AuditArgs) -> ExitCode {
    match audited(config, &args).await {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("landfall: the audit could not run: {error:#}");
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

async fn audited(config: Option<PathBuf>, args: &AuditArgs) -> anyhow::Result<AuditReport> {
    let config = Config::load(ConfigSources::process(config))?;
    logging::start(&config.log, None);
    let redis = server::connect_redis(
        &config,
        Some(&server::EmbeddedRedis::url_below(&config.data_dir))
            .filter(|_| config.redis.url.is_none()),
    )?;
    let public_url = server::public_url(&config, config.server.bind)?;
    let ProcessParts { app, .. } = server::assemble(Arc::new(config), redis, public_url).await?;
    let options = AuditOptions {
        repair: args.repair,
        deep: args.deep,
        force_orphans: args.force_orphans,
    };
    let bar = AuditProgress::new();
    let report = audit::audit(&app, options, &bar).await;
    bar.0.finish_and_clear();
    let report = report?;
    print(&report, args.json)?;
    Ok(report)
}

#[expect(clippy::print_stdout, reason = "the output of the command")]
fn print(report: &AuditReport, json: bool) -> anyhow::Result<()> {
    if json {
        let outcome = AuditOutput {
            checked: report.checked,
            offenders: &report.offenders,
        };
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        for offender in &report.offenders {
            let Violation {
                invariant,
                id,
                detail,
            } = offender;
            println!("{invariant}  {id}  {detail}");
        }
        let left: u64 = report.left.values().sum();
        println!("{} checked, {left} offenders", report.checked);
    }
    if report.unlisted() > 0 {
        eprintln!(
            "landfall: {} more offenders are not listed",
            report.unlisted()
        );
    }
    Ok(())
}

/// A progress bar on standard error, if that is a terminal. Repairs are reported there in any case.
struct AuditProgress(ProgressBar);

impl AuditProgress {
    fn new() -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(REDRAW_HZ)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self(ProgressBar::with_draw_target(None, target))
    }
}

impl AuditObserver for AuditProgress {
    fn step_started(&self, step: AuditStep, total: Option<u64>) {
        let template = if total.is_some() { BAR } else { SPINNER };
        let style = ProgressStyle::with_template(template);
        self.0
            .set_style(style.expect("the template is written here"));
        self.0.set_prefix(step.as_str());
        self.0.reset();
        match total {
            Some(total) => self.0.set_length(total),
            None => self.0.unset_length(),
        }
    }

    fn checked_more(&self, count: u64) {
        self.0.inc(count);
    }

    fn found(&self, offender: &Violation, repair: &RepairOutcome) {
        if let RepairOutcome::Done(what) = repair {
            let Violation {
                invariant,
                id,
                detail,
            } = offender;
            self.0
                .suspend(|| eprintln!("landfall: repaired {invariant} {id}: {detail}; {what}"));
        }
    }
}

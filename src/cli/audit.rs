//! `landfall audit`: the whole installation checked by hand, from the configuration.

use super::logging;
use crate::server::{self, Parts};
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

/// Times a second that the bar is drawn at most.
const HERTZ: u8 = 10;

const BAR: &str = "{prefix:20} {bar:20} {pos}/{len} {eta}";
const SPINNER: &str = "{prefix:20} {spinner} {pos}";

/// What the offenders offend against.
pub(super) const INVARIANTS: &str = "\
Invariants:
  I1  Each stored file has its object, with the size in its row; with --deep, the SHA-256 as well.
  I2  Each stored file has one `file.stored` event, and each such event a file.
  I5  No object without a row, no staged bytes without an upload or file, no multipart upload left open.
  I7  Nothing that is due has waited longer than two sweep intervals.";

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Repair what can be repaired: write missing events, push what is overdue, remove staged bytes of uploads that have
    /// ended, and set objects without a row aside (in a folder below `orphaned/`); a sweep removes those after seven
    /// days. When more than 100 objects and more than 1 % have no row, none of them is touched.
    #[arg(long)]
    pub repair: bool,
    /// With --repair: set aside up to this many objects without a row, whatever their share is.
    #[arg(long, value_name = "COUNT", requires = "repair")]
    pub force_orphans: Option<u64>,
    /// Read every stored object again and compare its SHA-256.
    #[arg(long)]
    pub deep: bool,
    /// Print the outcome as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    checked: u64,
    offenders: &'a [Violation],
}

/// Audits, and answers by its exit status: 0 when nothing offends (or all that did was repaired), 1 when something
/// does, 2 when the audit could not come to its end.
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
    let Parts { app, .. } = server::assemble(Arc::new(config), redis, public_url).await?;
    let options = AuditOptions {
        repair: args.repair,
        deep: args.deep,
        force_orphans: args.force_orphans,
    };
    let bar = Bar::new();
    let report = audit::audit(&app, options, &bar).await;
    bar.0.finish_and_clear();
    let report = report?;
    tell(&report, args.json)?;
    Ok(report)
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn tell(report: &AuditReport, json: bool) -> anyhow::Result<()> {
    if json {
        let outcome = Outcome {
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

/// A bar on standard error when that is a terminal; what is repaired is told there in any case.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(HERTZ)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self(ProgressBar::with_draw_target(None, target))
    }
}

impl AuditObserver for Bar {
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

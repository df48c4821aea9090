//! The commands: arguments in, exit code out.
//!
//! Exit codes: 0 done; 1 the thing asked for failed, or a fault was found; 2 usage; 3 the daemon is
//! not reachable; 4 not permitted; 5 partly done.

pub mod accounts;
mod act;
pub mod check;
pub mod complete;
pub mod demo;
pub mod demo_queue;
pub mod drill;
mod emergencies;
mod help;
pub mod hold;
mod progress;
mod resolve;
pub mod show;
pub mod stage;
pub mod text;
pub mod urgent;
pub mod word;
pub mod world;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::api::client::{Client, ClientError};
use crate::core::words::{Lang, Words, words};
use crate::daemon::config::Env;
use text::Voice;

#[derive(Parser, Debug)]
#[command(name = "fabu", version, about = "政务发布 · publishes to many accounts on several platforms at one instant")]
pub struct Arguments {
    /// The configuration
    #[arg(long, global = true, env = "FABU_CONFIG", default_value = "config/fabu.yaml", value_name = "FILE")]
    pub config: PathBuf,
    /// Language of messages: zh or en (default: by LANG)
    #[arg(long, global = true, value_name = "LANG")]
    pub lang: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Sandbox, daemon and a sample queue in one process; needs no credentials
    Demo(demo::Options),
    /// An emergency in a world of its own: the sandbox, no credential, every text stamped
    Drill(drill::Options),
    /// The daemon
    Run,
    /// Reads configuration and queue, and shows every fault
    Check {
        /// Queue files or folders (default: the configured queue)
        paths: Vec<PathBuf>,
    },
    /// What would go out, when, to whom, and what changed
    Plan,
    /// The state now
    Status {
        /// An announcement or occurrence
        id: Option<String>,
    },
    /// Units and accounts
    Accounts {
        #[command(subcommand)]
        what: Option<AccountsCommand>,
    },
    /// Says one thing everywhere at once, and holds routine silent
    Urgent(Box<urgent::Urgent>),
    /// The second person's word to an emergency
    Confirm(word::Confirm),
    /// Corrects a wrong emergency on exactly the accounts that carry it
    Correct(word::About),
    /// Ends an emergency and its hold
    AllClear(word::About),
    /// Holds routine silent, or lists what does
    Hold(hold::Hold),
    /// Ends a hold
    Resume {
        /// The hold (default: the one there is)
        hold: Option<String>,
    },
    /// What was kept back
    Held,
    /// Lets go what was kept back
    Unhold(hold::Unhold),
    /// Stops what is not out yet
    Cancel { id: String },
    /// Takes down what is out
    Delete { id: String },
    /// Tries failed deliveries again
    Retry {
        id: String,
        /// One account only
        account: Option<String>,
    },
    /// Settles a delivery whose fate is unknown
    Resolve(resolve::Resolve),
    /// Answers the mass-cancel guard
    Prune {
        #[arg(value_enum)]
        answer: act::PruneAnswer,
        /// What `fabu status` has shown; when more has gone since, nothing is done
        plan: Option<String>,
    },
    /// Who did what, when
    Audit {
        #[command(subcommand)]
        what: Option<AuditCommand>,
    },
    /// The platforms on loopback, with a page that shows their timelines
    Sandbox(world::SandboxOptions),
    /// JSON Schema of the YAML files
    Schema {
        #[arg(value_enum)]
        what: check::SchemaOf,
    },
    /// Completions for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Subcommand, Debug)]
pub enum AccountsCommand {
    /// Asks each platform whether the credential still works
    Check,
}

#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// Verifies the hash chain
    Verify {
        /// An exported head to compare with, SEQ:HASH
        #[arg(long, value_name = "SEQ:HASH")]
        head: Option<String>,
    },
}

/// How a command ended; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Denied = 4,
    Partly = 5,
}

/// Runs a command line.
pub fn main(arguments: impl Iterator<Item = std::ffi::OsString>) -> Exit {
    let env: Env = Arc::new(|name| std::env::var(name).ok());
    let arguments: Vec<std::ffi::OsString> = arguments.collect();
    let wish = wished_language(&arguments);
    let lang = text::language(wish.as_deref(), &*env);
    if let Some(exit) = complete::answered(&arguments, lang, &*env) {
        return exit;
    }
    let terminal = std::io::stdout().is_terminal();
    let parsed = match localised(lang).try_get_matches_from(&arguments) {
        Ok(matches) => Arguments::from_arg_matches(&matches),
        Err(error) => Err(error),
    };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            error.print().unwrap_or_default();
            return code;
        }
    };
    let colour = std::io::stderr().is_terminal() && env("NO_COLOR").is_none();
    let voice = Voice { lang, json: parsed.json, colour: colour && terminal, terminal };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(dispatch(parsed, voice, env));
            // A reader of the ledger that is still at work must not keep the command from ending.
            runtime.shutdown_timeout(std::time::Duration::from_millis(200));
            exit
        }
        Err(error) => {
            voice.error(&words!("无法启动：{error}", "cannot start: {error}"));
            Exit::Failed
        }
    }
}

fn wished_language(arguments: &[std::ffi::OsString]) -> Option<String> {
    let texts: Vec<&str> = arguments.iter().filter_map(|a| a.to_str()).collect();
    texts.iter().enumerate().find_map(|(n, a)| {
        a.strip_prefix("--lang=")
            .map(str::to_owned)
            .or_else(|| (*a == "--lang").then(|| texts.get(n + 1).map(|v| (*v).to_owned())).flatten())
    })
}

/// The command line, its help in the language asked for.
pub fn localised(lang: Lang) -> clap::Command {
    let mut command = Arguments::command();
    if lang == Lang::En {
        return command;
    }
    command = command
        .about("政务发布：多账号、多平台、同一时刻")
        .mut_arg("config", |a| a.help("配置文件"))
        .mut_arg("lang", |a| a.help("消息语言：zh 或 en（默认按 LANG）"))
        .mut_arg("json", |a| a.help("输出 JSON"));
    for (name, about) in [
        ("demo", "沙箱、守护进程与示例队列合在一个进程里；不需要任何凭据"),
        ("drill", "演练：只到沙箱，不用真实凭据，文字都盖【演练】"),
        ("run", "守护进程"),
        ("check", "检查配置与队列，列出所有问题"),
        ("plan", "将要发布什么、何时、发给谁，有何变化"),
        ("status", "当前状态"),
        ("accounts", "单位与账号；check 逐个询问凭据是否有效"),
        ("urgent", "紧急发布：处处同时说同一件事，例行发布静默"),
        ("confirm", "第二人对紧急发布的确认"),
        ("correct", "更正有误的紧急发布，恰好发给已发出它的账号"),
        ("all-clear", "解除紧急状态及其静默"),
        ("hold", "例行发布静默；list 列出现有的"),
        ("resume", "结束静默"),
        ("held", "静默中留住的"),
        ("unhold", "放行留住的"),
        ("cancel", "停止尚未发出的"),
        ("delete", "撤下已发出的"),
        ("retry", "重发失败的"),
        ("resolve", "由人判定结果不明的投递"),
        ("prune", "答复批量取消的保护"),
        ("audit", "谁在何时做了什么；verify 验证哈希链"),
        ("sandbox", "在本机模拟各平台，并以网页显示时间线"),
        ("schema", "YAML 文件的 JSON Schema"),
        ("completions", "命令行补全"),
    ] {
        command = command.mut_subcommand(name, |c| c.about(about));
    }
    for (name, arguments) in help::ARGUMENTS {
        command = command.mut_subcommand(name, |c| {
            arguments.iter().fold(c, |c, (argument, help)| c.mut_arg(argument, |a| a.help(*help)))
        });
    }
    command
}

async fn dispatch(arguments: Arguments, voice: Voice, env: Env) -> Exit {
    let config = arguments.config;
    match arguments.command {
        Command::Demo(options) => demo::run(&options, voice).await,
        Command::Drill(options) => drill::run(&config, &options, voice, &env).await,
        Command::Run => world::run(&config, voice, env).await,
        Command::Check { paths } => check::check(&config, &paths, voice, &env).await,
        Command::Plan => check::plan(&config, voice, &env).await,
        Command::Status { id } => show::status(&config, id.as_deref(), voice).await,
        Command::Accounts { what: None } => accounts::tree(&config, voice, &env),
        Command::Accounts { what: Some(AccountsCommand::Check) } => accounts::check(&config, voice, &env).await,
        Command::Urgent(what) => urgent::urgent(&config, &what, voice, env).await,
        Command::Confirm(what) => word::confirm(&config, &what, voice).await,
        Command::Correct(what) => word::about(&config, &what, word::Act::Correct, voice).await,
        Command::AllClear(what) => word::about(&config, &what, word::Act::AllClear, voice).await,
        Command::Hold(what) => hold::hold(&config, &what, voice).await,
        Command::Resume { hold } => hold::resume(&config, hold.as_deref(), voice).await,
        Command::Held => hold::held(&config, voice).await,
        Command::Unhold(what) => hold::unhold(&config, &what, voice).await,
        Command::Cancel { id } => act::post(&config, &id, "cancel", serde_json::json!({}), voice).await,
        Command::Delete { id } => act::post(&config, &id, "delete", serde_json::json!({}), voice).await,
        Command::Retry { id, account } => {
            act::post(&config, &id, "retry", serde_json::json!({ "account": account }), voice).await
        }
        Command::Resolve(resolve) => resolve::resolve(&config, &resolve, voice).await,
        Command::Prune { answer, plan } => act::prune(&config, answer, plan, voice).await,
        Command::Audit { what: None } => show::audit(&config, voice).await,
        Command::Audit { what: Some(AuditCommand::Verify { head }) } => {
            show::verify(&config, head.as_deref(), voice).await
        }
        Command::Sandbox(options) => world::sandbox(&config, &options, voice, &env).await,
        Command::Schema { what } => check::schema(what, voice),
        Command::Completions { shell } => complete::register(shell, voice),
    }
}

/// The socket of the configuration, and a client for it.
pub fn client(config: &std::path::Path, voice: Voice) -> Result<Client, Exit> {
    if let Some(socket) = OWN_SOCKET.get() {
        return Ok(Client::new(socket));
    }
    let (settings, faults) = crate::input::settings::read(config);
    let fallback = crate::input::settings::socket_of(config).filter(|s| s.exists());
    match settings.map(|s| s.socket).or(fallback) {
        Some(socket) => Ok(Client::new(&socket)),
        None => {
            for fault in &faults {
                voice.note(voice.fault(fault));
            }
            Err(Exit::Failed)
        }
    }
}

/// The socket of an errand without a daemon, where the one of the configuration is the service manager's.
static OWN_SOCKET: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// The zone a person reads times in.
pub fn zone(config: &std::path::Path) -> chrono_tz::Tz {
    crate::input::settings::read(config).0.map_or(chrono_tz::Asia::Shanghai, |s| s.zone)
}

/// Says why there is no answer, and which exit code that is.
pub fn refused(error: &ClientError, voice: Voice) -> Exit {
    match error {
        ClientError::Unreachable(socket) => {
            voice.error(&words!("连不上守护进程：{socket}", "no daemon answers on {socket}"));
            voice.hint(&Words::new(
                "先运行 fabu run，或用 --config 指明配置",
                "start it with `fabu run`, or name its configuration with --config",
            ));
            Exit::Unreachable
        }
        ClientError::Forbidden(socket, group) => {
            voice.error(&words!("无权使用套接字 {socket}", "you may not use the socket {socket}"));
            voice.hint(&words!(
                "它属于组 {group}：请管理员把你加进去（usermod -aG {group} 你的用户名），再重新登录",
                "it is the group {group}'s: have an administrator add you (usermod -aG {group} YOU), and log in anew"
            ));
            Exit::Denied
        }
        ClientError::Silent(socket) => {
            voice.error(&words!(
                "守护进程收到了请求，没有回答：{socket}；做没做成不知道",
                "the daemon on {socket} has the request and does not answer: whether it was done is not known"
            ));
            voice.hint(&Words::new(
                "它可能被暂停，或磁盘卡住：看看 fabu status，再决定要不要重来",
                "it may be stopped, or its disk may hang: look with `fabu status` before you ask again",
            ));
            Exit::Unreachable
        }
        ClientError::Refused { status, en, zh, .. } => {
            voice.error(&Words::new(zh.as_str(), en.as_str()));
            if *status == 403 { Exit::Denied } else { Exit::Failed }
        }
        ClientError::Odd(_) => {
            voice.error(&words!("守护进程的回答读不懂：{error}", "{error}"));
            Exit::Failed
        }
    }
}

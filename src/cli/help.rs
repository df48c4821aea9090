//! Help of the arguments in Chinese, for the commands of the other hour: there nobody should have to guess.

type Help = (&'static str, &'static str);

pub const ARGUMENTS: [(&str, &[Help]); 9] = [
    (
        "urgent",
        &[
            ("text", "要发的话；`-` 从标准输入读"),
            ("template", "用应急模板，代替文字"),
            ("set", "模板的值，名字=值；可重复"),
            ("cap", "用 CAP 1.2 警报文件，代替文字"),
            ("level", "级别（默认 red，或模板的级别）"),
            ("to", "发给谁：单位、`单位/**`、`**`、`#标签`，前面可加 `平台:`；可重复"),
            ("except", "除去这些；可重复"),
            ("link", "加在文字后面的链接"),
            ("image", "队列文件夹下的图片；可重复"),
            ("source", "消息来源，留作记录"),
            ("supersedes", "由它逐个账号取代的公告"),
            ("update", "由它更新的紧急发布"),
            ("hold", "日常发布静默多久（默认按级别，见配置）"),
            ("expires_after", "过了多久就不再发布"),
            ("id", "自己起的名字"),
            ("direct", "没有守护进程时直接发：同一账本，发完即止"),
            ("dry_run", "只显示什么会发到哪里，不发"),
            ("yes", "不再询问"),
            ("wait", "等到各账号都已发出，或确定发不出为止"),
        ],
    ),
    ("confirm", &[("id", "哪个紧急发布"), ("yes", "不再询问"), ("wait", "等到各账号都已发出，或确定发不出为止")]),
    (
        "correct",
        &[
            ("id", "哪个紧急发布"),
            ("text", "更正的话（默认用备好的，不需要第二人）"),
            ("dry_run", "只显示什么会发到哪里，不发"),
            ("yes", "不再询问"),
            ("wait", "等到各账号都已发出，或确定发不出为止"),
        ],
    ),
    (
        "all-clear",
        &[
            ("id", "哪个紧急发布"),
            ("text", "解除的话（默认用备好的，不需要第二人）"),
            ("dry_run", "只显示什么会发到哪里，不发"),
            ("yes", "不再询问"),
            ("wait", "等到各账号都已发出，或确定发不出为止"),
        ],
    ),
    (
        "resolve",
        &[
            ("account", "账号，平台:单位"),
            ("id", "公告，或其中一次"),
            ("published", "已经发出，在这个地址"),
            ("not_published", "没有发出"),
            ("all", "这条公告所有结果不明的投递"),
            ("from", "一次判定许多，每行一条：账号 公告 网址，或 账号 公告 not-published；`-` 从标准输入读"),
            ("post", "那一条在平台上的编号：它的文字与所发不同时用"),
            ("yes", "不再询问"),
        ],
    ),
    ("drill", &[("scenario", "谁在何时做什么，出什么故障；不给则由人操作"), ("keep", "结束后留着，可四处看看")]),
    (
        "hold",
        &[
            ("reason", "为什么静默"),
            ("until", "何时结束：时刻，或多久（默认直到有人结束它）"),
            ("to", "只限这些；可重复"),
            ("except", "除去这些；可重复"),
        ],
    ),
    ("unhold", &[("ids", "公告或其场次"), ("all", "留住的全部")]),
    ("resume", &[("hold", "哪个静默（默认唯一的那个）")]),
];

#[cfg(test)]
mod tests {
    use crate::core::words::Lang;

    #[test]
    fn every_argument_of_these_commands_has_its_chinese_help() {
        let command = crate::cli::localised(Lang::Zh);
        for (name, _) in super::ARGUMENTS {
            let sub = command.find_subcommand(name).unwrap();
            for argument in sub.get_arguments().filter(|a| !a.is_global_set() && a.get_id() != "help") {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_ascii(), "{name} {}: {help}", argument.get_id());
            }
        }
    }
}

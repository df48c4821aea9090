//! Arguments in, exit code out; everything else is the library's.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(fabu::cli::main(std::env::args_os()) as u8)
}

//! A small FTP server (RFC 959, RFC 2428) for one file, with passive connections. It listens on an
//! address of loopback that clients never dial, and behind address translation as many do: what it says
//! of its own address leads nowhere, so that a client has to know whom it asked.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The file's name and content.
pub(crate) const FILE: (&str, &str) = ("report.txt", "carried by the gateway\n");
/// Where it is: loopback, and not 127.0.0.1.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Where it thinks it is (RFC 5737).
const SAID: &str = "192,0,2,77";

/// The server. Its threads end with the test's process.
pub(crate) struct FtpServer {
    control: SocketAddr,
    commands: Arc<Mutex<Vec<String>>>,
}

impl FtpServer {
    pub(crate) fn start() -> FtpServer {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let control = listener.local_addr().unwrap();
        let commands = Arc::new(Mutex::new(Vec::new()));
        let heard = commands.clone();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let heard = heard.clone();
                std::thread::spawn(move || serve(client, &heard));
            }
        });
        FtpServer { control, commands }
    }

    /// Where its control connections are taken.
    pub(crate) fn control(&self) -> SocketAddr {
        self.control
    }

    /// The commands so far, without their arguments.
    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.commands.lock().unwrap())
    }
}

/// A client that leaves is no fault.
fn serve(mut control: TcpStream, heard: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(control.try_clone().unwrap()).lines();
    let mut passive: Option<TcpListener> = None;
    let mut say = move |text: &str| control.write_all(format!("{text}\r\n").as_bytes());
    let mut said = say("220 ready");
    while let (Ok(()), Some(Ok(line))) = (&said, lines.next()) {
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let command = command.to_ascii_uppercase();
        heard.lock().unwrap().push(command.clone());
        said = match (command.as_str(), passive.take()) {
            ("USER" | "PASS", _) => say("230 logged in"),
            ("PWD", _) => say("257 \"/\""),
            ("TYPE" | "CWD", kept) => {
                passive = kept;
                say("200 as you like")
            }
            ("SIZE", kept) => {
                passive = kept;
                say(&format!("213 {}", FILE.1.len()))
            }
            ("PASV" | "EPSV", _) => {
                let listener = TcpListener::bind((HERE, 0)).unwrap();
                let port = listener.local_addr().unwrap().port();
                passive = Some(listener);
                match command.as_str() {
                    "PASV" => say(&format!("227 at ({SAID},{},{})", port >> 8, port & 255)),
                    _ => say(&format!("229 at (|||{port}|)")),
                }
            }
            ("RETR", Some(listener)) if argument == FILE.0 => {
                let answer = say("150 here it comes");
                let (mut data, _) = listener.accept().unwrap();
                let sent = data.write_all(FILE.1.as_bytes());
                drop(data);
                answer.and(sent).and_then(|()| say("226 done"))
            }
            ("QUIT", _) => say("221 bye"),
            _ => say("502 not here"),
        };
    }
}

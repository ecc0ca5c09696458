use super::*;

fn refused(messages: &str) -> (String, String) {
    let entries = ["ok".to_owned(), "ns::k<float>".to_owned()];
    let files = Files {
        source: Path::new("/abs/k/attention.hip"),
        shown: Path::new("k/attention.hip"),
        wrapper: Path::new("/tmp/w/kernel.cpp"),
        headers: Path::new("/cache/include-1"),
        entries: &entries,
    };
    match files.rejected(messages) {
        CompileError::Rejected { first, errors, .. } => (first, errors),
        other => panic!("{other:?}"),
    }
}

fn say(messages: &str) -> String {
    refused(messages).0
}

#[test]
fn the_users_own_file_and_line_come_first() {
    assert_eq!(
        say("In file included from /tmp/w/kernel.cpp:2:\n/abs/k/attention.hip: In function \
             'void k()':\n/abs/k/attention.hip:7:5: error: 'x' was not declared in this scope\n"),
        "k/attention.hip:7:5: error: 'x' was not declared in this scope"
    );
    assert_eq!(
        say("/abs/k/attention.hip:1:10: fatal error: no.h: No such file or directory\n"),
        "k/attention.hip:1:10: error: no.h: No such file or directory; name its folder in \
         `include_dirs`"
    );
    assert_eq!(
        say(
            "In file included from /abs/k/attention.hip:1:\n/abs/k/../common/kit.h:2:1: error: a\n"
        ),
        "k/../common/kit.h:2:1: error: a"
    );
}

/// What g++ 12 writes for a template with three errors, each in two instances.
#[test]
fn every_error_is_told_once_with_its_line_and_who_asked_for_it() {
    let instance = |entry: usize, with: &str| {
        format!(
            "/abs/k/attention.hip: In instantiation of 'void k(T*) [with T = {with}]':\n\
             attnbench-entry-{entry}:1:1:   required from here\n\
             /abs/k/attention.hip:8:8: error: 'foo' was not declared in this scope\n    \
             8 |     foo(3);\n      |     ~~~^~~\n\
             /abs/k/attention.hip:9:13: error: invalid conversion\n    9 |     int y = \"abc\";\n      \
             |             ^~~~~\n      |             |\n      |             const char*\n"
        )
    };
    let messages = "In file included from /tmp/w/kernel.cpp:2:\n\
         /abs/k/attention.hip: In function 'void k(T*)':\n\
         /abs/k/attention.hip:8:5: error: there are no arguments to 'foo'\n    8 |     foo(3);\n      \
         |     ^~~\n/abs/k/attention.hip:8:5: note: (if you use '-fpermissive', it is deprecated)\n"
        .to_owned()
        + &instance(0, "float")
        + &instance(1, "int");
    assert_eq!(
        refused(&messages).1,
        " 2 errors\n\
         k/attention.hip:8:5: error: there are no arguments to 'foo'\n    8 |     foo(3);\n      \
         |     ^~~\n\
         k/attention.hip:9:13: error: invalid conversion (in the instance `ok`)\n    9 |     \
         int y = \"abc\";\n      |             ^~~~~\n      |             |"
    );
}

#[test]
fn of_many_errors_the_first_are_told_and_the_rest_are_counted() {
    let many: String = (1..=23)
        .map(|row| format!("/abs/k/attention.hip:{row}:1: error: number {row}\n"))
        .collect();
    let errors = refused(&many).1;
    assert!(errors.starts_with(" 23 errors\nk/attention.hip:1:1: error: number 1\n"), "{errors}");
    assert!(errors.ends_with(":20:1: error: number 20\nand 3 more errors"), "{errors}");
}

#[test]
fn an_error_inside_a_header_is_told_at_the_users_line() {
    assert_eq!(
        say("/cache/include-1/attnbench/wave.h: In instantiation of 'T f(T)':\n\
             /abs/k/attention.hip:9:20:   required from here\n\
             /cache/include-1/attnbench/wave.h:3:9: error: static assertion failed: big\n"),
        "k/attention.hip:9:20: error: static assertion failed: big"
    );
    assert_eq!(
        say("/cache/include-1/attnbench/wave.h:3:9: error: static assertion failed: big\n\
             /abs/k/attention.hip:9:20: note: in instantiation of f requested here\n"),
        "k/attention.hip:9:20: error: static assertion failed: big"
    );
}

#[test]
fn an_unknown_entry_is_told_by_its_name() {
    for text in ["'k' is not a member of 'ns'", "use of undeclared identifier 'ns'"] {
        assert_eq!(
            say(&format!("attnbench-entry-1:1:21: error: {text}\n")),
            "entry `ns::k<float>` is not declared in attention.hip"
        );
    }
    assert_eq!(say("attnbench-entry-0:1:1: error: ambiguous\n"), "entry `ok`: ambiguous");
}

#[test]
fn what_an_entry_names_besides_is_no_unknown_entry() {
    assert_eq!(
        say(
            "attnbench-entry-1:1:30: error: '__half' was not declared in this scope; did you mean \
             '__tanf'?\n"
        ),
        "entry `ns::k<float>`: '__half' was not declared in this scope; include <hip/hip_fp16.h> \
         in attention.hip"
    );
    // What follows from it is not told besides, nor what g++ says of the macro around it.
    let errors = refused(
        "attnbench-entry-1:1:30: error: 'T4' was not declared in this scope\n\
         /cache/include-1/attnbench/entry.h:94:37: error: unable to deduce 'auto'\n   94 |  x\n\
         attnbench-entry-1:1:1: note: in expansion of macro 'ATTNBENCH_ENTRY'\n",
    );
    assert_eq!(errors.1, " entry `ns::k<float>`: 'T4' was not declared in this scope");
}

#[test]
fn a_kernel_whose_source_has_errors_is_not_called_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("k.hip");
    fs::write(&source, "namespace n { template <int N> __global__ void kern(int *p) { x; } }")
        .unwrap();
    let say = |entry: &str, messages: &str| {
        let files = Files {
            source: &source,
            shown: Path::new("k.hip"),
            wrapper: Path::new("/tmp/w/kernel.cpp"),
            headers: Path::new("/cache/include-1"),
            entries: &[entry.to_owned()],
        };
        files.rejected(messages).to_string()
    };
    let shown = source.display();
    let both = |name: &str| {
        format!(
            "{shown}:1:60: error: 'x' was not declared in this scope\n\
             attnbench-entry-0:1:1: error: '{name}' is not a member of 'n'\n"
        )
    };
    let own = "k.hip does not compile: k.hip:1:60: error: 'x' was not declared in this scope\n    \
               1 | namespace n {";
    let one = say("n::kern<1>", &both("kern"));
    // The line and the caret come from the file where the compiler has not shown them.
    let caret = format!("\n      | {}^", " ".repeat(59));
    assert!(one.starts_with(own) && one.ends_with(&caret) && one.lines().count() == 3, "{one}");
    let two = say("n::kren<1>", &both("kren"));
    assert!(
        two.contains("2 errors\nk.hip:1:60") && two.contains("did you mean `n::kern`?"),
        "{two}"
    );
    let far = "attnbench-entry-0:1:1: error: 'other' is not a member of 'n'\n";
    assert!(
        say("n::other", far).ends_with("in k.hip; it declares n::kern"),
        "{}",
        say("n::other", far)
    );
    let mixed = "attnbench-entry-0:1:1: error: unable to deduce 'auto'\n";
    assert_eq!(
        say("n::kern<int>", mixed),
        "k.hip does not compile: entry `n::kern<int>`: unable to deduce 'auto' (`n::kern` is \
         declared as template <int N>)"
    );
}

/// NVRTC tells no column, and names the entry in words.
#[test]
fn messages_of_nvrtc_are_read_alike() {
    let messages = "/abs/k/attention.hip(9): error: identifier \"x\" is undefined\n      x = 1;\n      ^\n\
                    \x20         detected during instantiation of \"void k(T *) [with T=float]\" at \
                    line 1 of attnbench-entry-0\n\n1 error detected in the compilation of \"u.hip\".\n";
    assert_eq!(
        refused(&from_nvrtc(messages)).1,
        " k/attention.hip:9:1: error: identifier \"x\" is undefined (in the instance `ok`)\n      \
         x = 1;\n      ^"
    );
    let nameless = "/abs/k/attention.hip(9): error: no\n      x\n      ^\n          detected during \
                    instantiation of \"void k(T *) [with T=float]\" \n\n";
    assert_eq!(
        say(&from_nvrtc(nameless)),
        "k/attention.hip:9:1: error: no (during instantiation of \"void k(T *) [with T=float]\")"
    );
    assert_eq!(
        say(&from_nvrtc("attnbench-entry-1(1): error: namespace \"ns\" has no member \"k\"\n")),
        "entry `ns::k<float>` is not declared in attention.hip"
    );
}

#[test]
fn a_linkers_message_is_found() {
    assert_eq!(
        say("/usr/bin/ld: k.o: in function `f':\nk.hip:3: undefined reference to `g'\n"),
        "k.hip:3: undefined reference to `g'"
    );
}

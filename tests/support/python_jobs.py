"""The module ``jobs`` of tests of ``python!`` jobs, as a text. It runs in workers of rbit."""

from __future__ import annotations

JOBS = '''
import json, os, signal, subprocess, sys, threading, time
import rbit

with open("imports", "a") as file:
    file.write("import\\n")

def note(*words):
    with open("ran", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def given(message, set_status, settings):
    note(json.dumps({
        "body": message.body.decode(), "queue": message.queue, "headers": message.headers,
        "redelivered": message.redelivered, "type": message.properties.type,
        "delivery_mode": message.properties.delivery_mode, "settings": settings,
    }, sort_keys=True))

def size(message, set_status, settings):
    import hashlib
    note(len(message.body), hashlib.sha256(message.body).hexdigest())

def hello(message, set_status, settings={}):
    import jsonpickle
    set_status("Building", "Starting job")
    request = jsonpickle.decode(message.body)
    try:
        print("Hello {0}!".format(settings["name"]))
    except KeyError as error:
        set_status("Failed", error)
        return
    print("Building {0}".format(request.get_package()))
    note(request.get_package(), type(request).__module__, message.build_request().get_version())
    set_status("Done", "Completed job")

def where(message, set_status, settings):
    note(os.getpid(), threading.current_thread() is threading.main_thread())

def by_body(message, set_status, settings):
    what = message.body.decode()
    note("run", what)
    if what == "exit 3":
        os._exit(3)
    elif what == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "kill keeper":
        subprocess.Popen(["sleep", "987"])
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    elif what == "sys.exit":
        sys.exit("gone")
    elif what == "interrupt":
        raise KeyboardInterrupt
    elif what == "failed":
        raise rbit.Failed("not today")
    elif what == "failed status":
        set_status("Failed", ValueError("as an object"))
    elif what == "done then error":
        set_status("Done")
        raise RuntimeError("after all")
    elif what == "uploaded":
        set_status("Uploaded", "to the shelf")
    elif what == "unknown status":
        set_status("Polishing", "nearly")
    elif what == "same status":
        set_status("Building", "twice")
    elif what == "empty status":
        set_status("")
    elif what == "bad str":
        class Bad:
            def __str__(self):
                raise TypeError("no words")
        set_status("Building", Bad())
    elif what == "threads":
        threads = [threading.Thread(target=set_status, args=("Building", f"part {n}")) for n in range(20)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    elif what == "close stdout":
        sys.stdout.close()
    elif what == "close descriptors":
        os.close(1)
        os.close(2)
    elif what == "prints and reports":
        for n in range(20):
            print("line", n)
            set_status("Building", f"status {n}")
    elif what == "chdir":
        os.chdir("/")
    elif what == "fork returns":
        if os.fork() == 0:
            return
        os.wait()
    elif what == "long line":
        sys.stdout.write("x" * 1_000_000)
    elif what == "bytes":
        os.write(1, b"caf\\xe9 \\xff\\nnext\\n")
        os.write(2, b"to stderr without newline")
    elif what == "big status":
        set_status("Building", "y" * 10_000_000)

async def later(message, set_status, settings):
    note("never")

def pieces(message, set_status, settings):
    yield 1

def leaves(message, set_status, settings):
    child = subprocess.Popen(["sleep", "1000"])
    far = subprocess.Popen(["sh", "-c",
        "setsid sleep 1001 & setsid sh -c 'trap \\"\\" TERM; echo >ready; sleep 1002' &"])
    while not os.path.exists("ready"):
        time.sleep(0.01)
    far.wait()

def stops_its_keeper(message, set_status, settings):
    if message.body == b"stop":
        os.kill(os.getppid(), signal.SIGSTOP)
        time.sleep(1000)

def stuck(message, set_status, settings):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sh", "-c", "trap '' TERM; setsid sleep 1003 & echo $! >grandchild; wait"])
    while not os.path.exists("grandchild") or not open("grandchild").read().strip():
        time.sleep(0.01)
    note(os.getpid(), open("grandchild").read().strip())
    time.sleep(1000)
'''

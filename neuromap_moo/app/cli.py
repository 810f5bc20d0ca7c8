"""The command line: it composes a configuration, runs its task and ends with the right code.

What needs no configuration is answered before Hydra is imported, and a task's own modules are imported once its
configuration stands.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from neuromap_moo.app.messages import answer, plain_message, refuse_unknown_options, say
from neuromap_moo.errors import DeviceError, InputError

WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130


def main() -> None:
    """Run the command line and exit with its code: 0 done, 2 wrong input, 130 interrupted, 1 anything else."""
    arguments = sys.argv[1:]
    text = answer(arguments)
    if text is None:
        _exit_with_its_code(lambda: _run(arguments))
    else:
        _exit_with_its_code(lambda: print(text))


def _run(arguments: list[str]) -> None:
    """Compose the configuration and run its task."""
    refuse_unknown_options(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through as they are
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from neuromap_moo.files import config_folder

    refused: list[Exception] = []

    def job(config: DictConfig) -> None:
        from neuromap_moo.app.tasks import run_task

        try:
            run_task(config)
        except BrokenPipeError:
            _say_no_more()
        except (InputError, OmegaConfBaseException, OSError, MemoryError, DeviceError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # perhaps in another process; Hydra then says which job it was
            refused.append(error)

    application = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(job)
    try:
        application()
        if refused:
            raise refused[0]
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(plain_message(str(error))) from error


def _exit_with_its_code(work: Callable[[], None]) -> None:
    """Do `work`; where it fails, say why in one line and exit with the code for it."""
    try:
        work()
        sys.stdout.flush()
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:
        _say_no_more()
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; free it or choose another path")
    except DeviceError as error:
        say(f"neuromap_moo: {error}; the same command goes on where this one ended")
        sys.exit(FAILED)
    except MemoryError as error:
        _fail(f"not enough memory ({error}); take a smaller network, system or population")
    except KeyboardInterrupt as error:
        if str(error):
            say(f"neuromap_moo: {error}; the same command goes on from there")
        sys.exit(INTERRUPTED)
    except Exception:
        traceback.print_exc()
        sys.exit(FAILED)


def _say_no_more() -> None:
    """Let the rest of the output go nowhere: its reader has closed the pipe, and every file is written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> None:
    say("neuromap_moo: " + " ".join(message.split()))
    sys.exit(WRONG_INPUT)

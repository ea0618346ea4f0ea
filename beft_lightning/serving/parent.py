"""A process that ends with its parent, however that has ended."""

import multiprocessing
import os
import threading
import time


def end_with_parent(interval: float = 1.0) -> None:
    """End this process soon after its parent has ended.

    A parent that is killed cannot end its children. They would go on, and keep memory and ports.

    Args:
        interval: Time between two looks, in seconds.
    """
    process = multiprocessing.parent_process()  # It may have ended already.
    parent = process.pid if process else os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval)
        os._exit(1)  # No signal: processes of a server ignore some.

    threading.Thread(target=watch, daemon=True).start()

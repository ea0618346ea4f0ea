"""Images and sounds with a class each: the DataModules, their task, and how files become arrays."""

"""Looking while a model trains: observe, History, guard, and leaves that the loss does not use."""

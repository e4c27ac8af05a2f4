from src.system import CountingSystem

from espnet3.systems.launch import launch

if __name__ == "__main__":
    launch(CountingSystem)

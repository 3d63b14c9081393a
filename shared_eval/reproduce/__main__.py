from shared_eval.reproduce import main

if __name__ == "__main__":
    main()

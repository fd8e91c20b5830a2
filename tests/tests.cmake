# Registers every test binary with CTest, and the checks that are scripts.
foreach(room IN LISTS ROOMS)
  if(TARGET ${room}_test)
    add_test(NAME ${room} COMMAND ${room}_test --no-path-filenames=1 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${room} PROPERTIES LABELS unit)
  endif()
endforeach()

find_package(Python3 COMPONENTS Interpreter REQUIRED)

# script_test(NAME LABEL COMMAND...): runs in the source folder.
function(script_test name label)
  add_test(NAME ${name} COMMAND ${ARGN} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS ${label})
endfunction()

script_test(layers unit ${Python3_EXECUTABLE} tools/check_layers.py)
script_test(layers_planted unit ${Python3_EXECUTABLE} tools/layers_test.py)
script_test(docs_paths unit ${Python3_EXECUTABLE} tools/docs_test.py)
script_test(lint_rules unit ${Python3_EXECUTABLE} tools/lint.py --no-format)
script_test(lint_planted unit ${Python3_EXECUTABLE} tools/lint_test.py)
if(TARGET fathom)
  script_test(cli_exit_codes unit tests/cli/exit_codes.sh $<TARGET_FILE:fathom>)
  script_test(cli_report unit tests/cli/report.sh $<TARGET_FILE:fathom>)
  script_test(cli_generate unit ${Python3_EXECUTABLE} tests/cli/generate.py $<TARGET_FILE:fathom>)
  script_test(readme_run unit ${Python3_EXECUTABLE} tools/readme_run.py README.md $<TARGET_FILE_DIR:fathom>)
endif()

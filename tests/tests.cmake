# Registers every test binary with CTest, and the checks that are scripts.
foreach(room IN LISTS ROOMS)
  if(TARGET ${room}_test)
    add_test(NAME ${room} COMMAND ${room}_test --no-path-filenames=1 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${room} PROPERTIES LABELS unit)
  endif()
endforeach()

# The matrix unit's kernels on processors without one: tests/matrix_unit/emulation.cpp.
if(TARGET fathom_kernels AND NOT FATHOM_SANITIZE)
  set(unit_tests attention_bf16 attention_codes gemm_grad_split index_codes int_gemm split_products split_rows)
  list(TRANSFORM unit_tests PREPEND ${PROJECT_SOURCE_DIR}/fathom/kernels/cpu/simd/)
  list(TRANSFORM unit_tests APPEND _test.cpp)
  add_executable(matrix_unit_test ${PROJECT_SOURCE_DIR}/tests/matrix_unit/emulation.cpp ${unit_tests})
  target_link_libraries(matrix_unit_test PRIVATE fathom_kernels)
  optimise(matrix_unit_test O1)
  add_test(NAME matrix_unit COMMAND matrix_unit_test --no-path-filenames=1
           "--test-case-exclude=*steps and threads give equal bits*,*attention is near the reference*"
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(matrix_unit PROPERTIES LABELS unit SKIP_RETURN_CODE 77)
  add_test(NAME matrix_unit_slow COMMAND matrix_unit_test --no-path-filenames=1
           "--test-case=*steps and threads give equal bits*,*attention is near the reference*"
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(matrix_unit_slow PROPERTIES LABELS slow SKIP_RETURN_CODE 77)
endif()

# What is marked doctest::test_suite("slow") * doctest::skip().
if(TARGET task_test)
  add_test(NAME task_slow COMMAND task_test --no-path-filenames=1 --no-skip --test-suite=slow
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(task_slow PROPERTIES LABELS slow)
endif()

if(TARGET task_test)
  add_executable(math_worker ${PROJECT_SOURCE_DIR}/tests/workers/math_worker.cpp)
  target_link_libraries(math_worker PRIVATE fathom_task)
  add_dependencies(task_test math_worker)  # which starts it
endif()

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
  # Every folder that concerns the model, in one run for each precision.
  set(golden_folders v32-nano v32-tiny v32-tiny-fp8 v32-tiny-fp8-ue8m0 fp8-units v3-tiny v2lite-tiny v2-tiny
      moonlight-tiny kimi-tiny glm-dsa-tiny mscale-split-tiny rl-nano)
  list(TRANSFORM golden_folders PREPEND tests/golden/)
  foreach(precision f32 f64)
    script_test(golden_${precision} golden $<TARGET_FILE:fathom> golden ${golden_folders} --precision ${precision} --quiet)
  endforeach()
  script_test(golden_ref golden ${CMAKE_COMMAND} -E env FATHOM_ISA=ref
              $<TARGET_FILE:fathom> golden tests/golden/v32-nano tests/golden/glm-dsa-tiny --quiet)
  script_test(train_kill_resume train ${Python3_EXECUTABLE} tests/train/kill_resume.py $<TARGET_FILE:fathom>)
  script_test(train_kill_resume_rl train ${Python3_EXECUTABLE} tests/train/kill_resume.py $<TARGET_FILE:fathom> 6 any rl)
  script_test(train_rollouts train ${Python3_EXECUTABLE} tests/train/rollouts.py $<TARGET_FILE:fathom>)
  script_test(train_kill_resume_ppo train ${Python3_EXECUTABLE} tests/train/kill_resume.py $<TARGET_FILE:fathom> 5 any ppo)
  script_test(train_collect train ${Python3_EXECUTABLE} tests/train/collect.py $<TARGET_FILE:fathom>)
  script_test(train_verifiers train ${Python3_EXECUTABLE} tests/train/verifiers.py $<TARGET_FILE:fathom>
              $<TARGET_FILE:math_worker>)
  script_test(train_sweep train ${Python3_EXECUTABLE} tests/train/sweep.py $<TARGET_FILE:fathom>)
  script_test(train_checkpoints train ${Python3_EXECUTABLE} tests/train/checkpoints.py $<TARGET_FILE:fathom>)
  script_test(train_ranks train ${Python3_EXECUTABLE} tests/train/ranks.py $<TARGET_FILE:fathom>)
  set_tests_properties(train_ranks PROPERTIES SKIP_RETURN_CODE 77)
  script_test(train_dump_diff train ${Python3_EXECUTABLE} tests/train/dump_diff.py $<TARGET_FILE:fathom>)
  script_test(golden_altered golden ${Python3_EXECUTABLE} tests/golden/altered_test.py $<TARGET_FILE:fathom>)
  script_test(cli_exit_codes unit tests/cli/exit_codes.sh $<TARGET_FILE:fathom>)
  script_test(cli_check_code unit tests/cli/check_code.sh $<TARGET_FILE:fathom>)
  script_test(cli_report unit tests/cli/report.sh $<TARGET_FILE:fathom>)
  script_test(cli_generate unit ${Python3_EXECUTABLE} tests/cli/generate.py $<TARGET_FILE:fathom>)
  script_test(cli_prefix_cache unit ${Python3_EXECUTABLE} tests/cli/prefix_cache.py $<TARGET_FILE:fathom>)
  script_test(cli_checkpoint unit ${Python3_EXECUTABLE} tests/cli/checkpoint.py $<TARGET_FILE:fathom>)
  script_test(cli_check_answer unit tests/cli/check_answer.sh $<TARGET_FILE:fathom>)
  script_test(cli_chat_tools unit ${Python3_EXECUTABLE} tests/cli/chat_tools.py $<TARGET_FILE:fathom>)
  script_test(cli_chat unit ${Python3_EXECUTABLE} tests/cli/chat.py $<TARGET_FILE:fathom>)
  script_test(cli_demo unit ${Python3_EXECUTABLE} tests/cli/demo.py $<TARGET_FILE:fathom>)
  script_test(readme_run unit ${Python3_EXECUTABLE} tools/readme_run.py README.md $<TARGET_FILE_DIR:fathom>)
endif()
